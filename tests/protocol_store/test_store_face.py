"""The folder's `__init__` is its whole public face, and costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import callboard.protocol.store as face


def test_every_public_name_is_there() -> None:
    for name in face.__all__:
        assert getattr(face, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = face.nothing_like_it


def test_importing_the_store_does_not_import_its_clients() -> None:
    heavy = "print([name for name in ('elasticsearch', 'elastic_transport', 'httpx') if name in sys.modules])"
    code = f"import sys, callboard.protocol.store; {heavy}"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"

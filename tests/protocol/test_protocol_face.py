"""The public face of the protocol: everything it lists is there, and naming it costs little."""

from __future__ import annotations

import subprocess
import sys

import pytest

import callboard.protocol as protocol


def test_every_listed_name_is_there() -> None:
    for name in protocol.__all__:
        assert getattr(protocol, name) is not None
        assert name in dir(protocol)
    assert protocol.Connector is protocol.documents.Connector


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="prompter"):
        _ = protocol.prompter  # type: ignore[attr-defined]


def test_the_protocol_loads_nothing_of_the_other_rooms_and_no_client() -> None:
    program = (
        "import sys, callboard.protocol as p\n"
        "assert 'cattrs' not in sys.modules\n"
        "[getattr(p, name) for name in p.__all__]\n"
        "rooms = ('runtime', 'sources', 'actors', 'node', 'cli', 'protocol.store')\n"
        "found = [m for m in sys.modules if m.split('.')[0] in ('httpx', 'elasticsearch', 'trio')"
        " or m.startswith(tuple('callboard.' + room for room in rooms))]\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

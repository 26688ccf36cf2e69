"""The `connectors` list of a service's configuration file, changed without losing the comments people wrote in it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from .exits import Exit
from .failures import CommandFailed
from .private_files import write_private


def check_service_file(path: Path) -> None:
    """Raise `CommandFailed` if the file could not be changed later, before anything else is done."""
    _load(path)


def add_connector(path: Path, connector_id: str, service_type: str, api_key: str | None) -> None:
    """Append a connector to the file, which is made if need be; replaced whole or not at all."""
    yaml, document = _load(path)
    entry = {"connector_id": connector_id, "service_type": service_type}
    if api_key is not None:
        entry["api_key"] = api_key
    if document.get("connectors") is None:
        document["connectors"] = []
    document["connectors"].append(entry)
    text = io.StringIO()
    yaml.dump(document, text)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    try:
        write_private(path, text.getvalue(), mode=mode)
    except OSError as error:
        raise CommandFailed(
            f"{str(path)!r} cannot be written: {error.strerror}.",
            hint=f"The connector was created; add it to the file by hand: {connector_id}",
            code=Exit.LOCAL,
        ) from error


def _load(path: Path) -> tuple[Any, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.error import YAMLError

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    try:
        document = yaml.load(path.read_text(encoding="utf-8")) if path.exists() else None
    except (YAMLError, UnicodeDecodeError):
        raise CommandFailed(f"{str(path)!r} is not YAML; correct it first.", code=Exit.USAGE) from None
    except OSError as error:
        raise CommandFailed(f"{str(path)!r} cannot be read: {error.strerror}.", code=Exit.LOCAL) from None
    if document is None:
        document = CommentedMap()
    if not isinstance(document, dict) or not isinstance(document.get("connectors") or [], list):
        raise CommandFailed(
            f"{str(path)!r} is not a service's configuration file: connectors must be a list.", code=Exit.USAGE
        )
    return yaml, document

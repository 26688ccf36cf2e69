"""Who may read a file of a network drive: Windows access control lists ([MS-DTYP] 2.4) as principals, and the people of a CSV file.

Rights fail closed: a list that cannot be read, or that lets nobody in, lets nobody in.
"""

from __future__ import annotations

import csv
import struct
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import Final

import attrs

from ..protocol.access import access_list
from .errors import ConfigurationError, UnexpectedAnswer
from .permissions import Directory, Readers, without
from .source import Identity

ALLOW: Final = 0
DENY: Final = 1
INHERIT_ONLY: Final = 0x08
READS: Final = 0x1 | 0x80000000 | 0x10000000
"""Rights with which a file can be read: to read data, generic reading, and everything."""
EVERYBODY: Final = ("S-1-1-0", "S-1-5-11")
"""Everyone, and everyone who has logged in: every identity carries them."""


@attrs.frozen
class AccessEntry:
    """One entry of an access control list."""

    kind: int
    flags: int
    mask: int
    sid: str


def read_sid(raw: bytes) -> str:
    """Write a security identifier as text. Raises `UnexpectedAnswer` if it is cut short."""
    if len(raw) < 8 or len(raw) < 8 + 4 * raw[1]:
        raise UnexpectedAnswer("The server sent a security identifier that is cut short.")
    parts = struct.unpack_from(f"<{raw[1]}I", raw, 8)
    return "-".join(["S", str(raw[0]), str(int.from_bytes(raw[2:8], "big")), *map(str, parts)])


def read_descriptor(raw: bytes) -> list[AccessEntry] | None:
    """Read the discretionary access control list of a self-relative security descriptor; None if it has none, which lets all in.

    Raises `UnexpectedAnswer` for bytes that are no such descriptor.
    """
    if len(raw) < 20:
        raise UnexpectedAnswer("The server sent a security descriptor that is cut short.")
    control, _, _, _, start = struct.unpack_from("<HIIII", raw, 2)
    if not control & 0x4 or start == 0:
        return None
    if start + 8 > len(raw):
        raise UnexpectedAnswer("The server sent a security descriptor without its list.")
    _, _, _, count, _ = struct.unpack_from("<BBHHH", raw, start)
    return list(_entries(raw, start + 8, count))


def _entries(raw: bytes, at: int, count: int) -> Iterator[AccessEntry]:
    for _ in range(count):
        if at + 8 > len(raw):
            raise UnexpectedAnswer("The server sent an access control list that is cut short.")
        kind, flags, size = struct.unpack_from("<BBH", raw, at)
        if size < 8 or at + size > len(raw):
            raise UnexpectedAnswer("The server sent an access control entry that is cut short.")
        if kind in (ALLOW, DENY):
            yield AccessEntry(kind, flags, struct.unpack_from("<I", raw, at + 4)[0], read_sid(raw[at + 8 : at + size]))
        at += size


def readers(entries: list[AccessEntry] | None, directory: Directory) -> list[str]:
    """Return the principals that may read: allowed to read and not denied it, neither themselves nor through a group.

    Entries that only children inherit, and rights other than reading, do not count. Where something is denied, groups are replaced
    by the people whom `directory` knows in them; a denial of somebody it does not know leaves nobody. Never empty.
    """
    if entries is None:
        return [f"sid:{sid}" for sid in EVERYBODY]
    here = [entry for entry in entries if not entry.flags & INHERIT_ONLY and entry.mask & READS]
    allowed, denied = (
        Readers.only(f"sid:{entry.sid}" for entry in here if entry.kind == kind) for kind in (ALLOW, DENY)
    )
    found = without(allowed, denied, directory)
    return access_list(name for name in found.names or () if name.startswith("sid:"))


def directory_of(people: Iterable[Identity]) -> Directory:
    """Tell who is who. A SID that belongs to nobody here may be a group of unknown members, so each SID counts as a group."""
    groups: dict[str, frozenset[str]] = {}
    aliases = []
    for person in people:
        own = f"sid:{person.id}"
        aliases.append(frozenset({own, person.fields["username"]}))
        for sid in (one for one in person.access if one.startswith("sid:")):
            groups[sid] = groups.get(sid, frozenset()) | {person.fields["username"]}
    return Directory(groups=groups, people=aliases, group_prefixes=frozenset({"sid"}))


def read_people(path: str) -> list[Identity]:
    """Read the people of a CSV file without a header: name; SID; SIDs of groups with commas between them. Blocking.

    Raises `ConfigurationError` that names the line.
    """
    if not path.strip():
        raise ConfigurationError(
            "The setting identity_mappings is empty. Name a CSV file on the machine that runs Callboard, with lines of "
            "user;SID;group SIDs."
        )
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The file {path} of the setting identity_mappings cannot be read: {error}."
        ) from error
    people = []
    for number, row in enumerate(csv.reader(StringIO(text), delimiter=";"), start=1):
        if not row or not "".join(row).strip():
            continue
        if len(row) < 2 or not row[0].strip() or not row[1].strip().startswith("S-"):
            raise ConfigurationError(f"Line {number} of {path} is not of the form user;SID;group SIDs.")
        name, sid = row[0].strip(), row[1].strip()
        groups = [one.strip() for one in (row[2] if len(row) > 2 else "").split(",") if one.strip()]
        access = [f"sid:{sid}", f"user:{name}", *(f"sid:{one}" for one in dict.fromkeys([*groups, *EVERYBODY]))]
        people.append(Identity(sid, {"username": f"user:{name}", "user_id": f"sid:{sid}"}, access))
    return people

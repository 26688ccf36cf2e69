"""Who may read a document, computed from what a system says about permissions: sets of readers and their algebra, without any I/O.

Elasticsearch knows only a list of principals that may see a document. Systems know more: ancestors that restrict, denials that
go before grants, groups within groups, and calls that fail. This module turns the second into the first, by two rules:

- What is not known lets nobody in. A permission call that failed counts as `UNKNOWN`, and putting `UNKNOWN` in the place of any
  set in any expression never lets somebody in who would not have been let in otherwise.
- A list cannot say "but not". So where something is denied, or two lists meet, groups are replaced by their members as far as
  the members are known; a group whose members are not known is dropped from grants, and denies everybody in denials.

One person may go by several principals (a login and an e-mail address). Whoever is denied by one of them is denied by all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from ..protocol.access import access_list


@attrs.frozen
class Readers:
    """A set of readers: everybody, those named, or an unknown one."""

    names: frozenset[str] | None
    """Principals such as `email:a@b`; None means everybody."""
    is_known: bool = True

    @classmethod
    def only(cls, names: Iterable[str | None]) -> Readers:
        """Those named and nobody else; missing and blank names are dropped."""
        return cls(frozenset(name.strip() for name in names if name is not None and name.strip()))

    @property
    def is_everybody(self) -> bool:
        return self.names is None

    def access(self) -> list[str] | None:
        """Make what `Document.access` takes: None for everybody, else a list that is never empty."""
        return None if self.names is None else access_list(self.names)


EVERYBODY: Final = Readers(None)
NO_ONE: Final = Readers(frozenset())
UNKNOWN: Final = Readers(frozenset(), is_known=False)
"""Readers that a failed call kept from us."""


@attrs.frozen
class Rule:
    """What one level (a space, a page, a folder) says: who is granted, less who is denied."""

    allow: Readers = EVERYBODY
    deny: Readers = NO_ONE


@attrs.frozen
class Directory:
    """Who is who, as far as it is known."""

    groups: Mapping[str, frozenset[str] | None] = attrs.field(factory=dict)
    """A group's principal to those of its members, which may be groups; None if the members could not be read."""
    people: Sequence[frozenset[str]] = ()
    """All the principals of each person. A person left out goes by one principal."""
    group_prefixes: frozenset[str] = frozenset({"group"})
    """Principals with these prefixes are groups, known or not."""
    _aliases: dict[str, frozenset[str]] = attrs.field(init=False, repr=False, eq=False)

    @_aliases.default
    def _index(self) -> dict[str, frozenset[str]]:
        index: dict[str, frozenset[str]] = {}
        for person in self.people:
            # Two entries that share a principal are the same person.
            merged = person.union(*(index[name] for name in person if name in index))
            index.update(dict.fromkeys(merged, merged))
        return index

    def is_group(self, name: str) -> bool:
        return name in self.groups or name.partition(":")[0] in self.group_prefixes

    def aliases(self, name: str) -> frozenset[str]:
        return self._aliases.get(name, frozenset({name}))

    def persons(self, names: Iterable[str]) -> tuple[frozenset[str], bool]:
        """Replace groups by their members, through all levels. The second value is False if some members are not known."""
        persons: set[str] = set()
        seen: set[str] = set()
        waiting = list(names)
        complete = True
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            if not self.is_group(name):
                persons |= self.aliases(name)
                continue
            members = self.groups.get(name)
            if members is None:
                complete = False
            else:
                waiting.extend(members)
        return frozenset(persons), complete


def either(*sets: Readers) -> Readers:
    """Those in at least one of the sets. An unknown set adds nobody, and makes the answer unknown if nobody is left."""
    names: set[str] = set()
    for one in sets:
        if one.names is None:
            return EVERYBODY
        names |= one.names
    return UNKNOWN if not names and not all(one.is_known for one in sets) else Readers(frozenset(names))


def both(first: Readers, second: Readers, directory: Directory | None = None) -> Readers:
    """Those in both sets. An unknown set lets nobody through."""
    if not (first.is_known and second.is_known):
        return UNKNOWN
    if first.names is None:
        return second
    if second.names is None:
        return first
    if first.names == second.names:
        return first
    known = directory or Directory()
    in_first, in_second = known.persons(first.names)[0], known.persons(second.names)[0]
    return Readers((first.names & second.names) | (in_first & in_second))


def without(allowed: Readers, denied: Readers, directory: Directory | None = None) -> Readers:
    """Those allowed and not denied. Everybody but some cannot be written as a list, and so becomes nobody.

    A denial that is unknown, or names a group with unknown members, denies everybody.
    """
    if denied.is_known and denied.names == frozenset():
        return allowed
    known = directory or Directory()
    if not denied.is_known or denied.names is None or not allowed.is_known or allowed.names is None:
        return UNKNOWN if not (denied.is_known and allowed.is_known) else NO_ONE
    refused, complete = known.persons(denied.names)
    if not complete:
        return UNKNOWN
    granted, _ = known.persons(allowed.names)
    return Readers(granted - refused)


def effective(levels: Iterable[Rule], directory: Directory | None = None) -> Readers:
    """Those whom every level lets in, from the outermost ancestor to the document itself; at each, denials go before grants.

    Without any level nothing is known about the document, and nobody is let in.
    """
    readers: Readers | None = None
    for level in levels:
        here = without(level.allow, level.deny, directory)
        readers = here if readers is None else both(readers, here, directory)
    return UNKNOWN if readers is None else readers

"""The algebra of readers: truth tables for each operation, and what must hold for any permissions whatsoever."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol.access import ALLOW_ACCESS_CONTROL, NOBODY, allows
from callboard.sources.permissions import (
    EVERYBODY,
    NO_ONE,
    UNKNOWN,
    Directory,
    Readers,
    Rule,
    both,
    effective,
    either,
    without,
)

ANN, BOB, CY = "user:ann", "user:bob", "user:cy"
ENG, ALL, LOST = "group:eng", "group:all", "group:lost"
DIRECTORY = Directory(
    groups={ENG: frozenset({ANN, BOB}), ALL: frozenset({ENG, CY}), LOST: None},
    people=(frozenset({ANN, "email:ann@x"}), frozenset({BOB}), frozenset({CY})),
)


def only(*names: str) -> Readers:
    return Readers.only(names)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (EVERYBODY, EVERYBODY, EVERYBODY),
        (EVERYBODY, only(ANN), only(ANN)),
        (only(ANN), EVERYBODY, only(ANN)),
        (only(ANN, BOB), only(BOB, CY), only(BOB)),
        (only(ANN), only(BOB), NO_ONE),
        (only(ENG), only(ENG), only(ENG)),
        (only(ENG), only(BOB, CY), only(BOB)),
        (only(ALL), only(ENG), only(ANN, "email:ann@x", BOB)),
        (only("email:ann@x"), only(ANN), only(ANN, "email:ann@x")),
        (only(LOST), only(BOB), NO_ONE),
        (only(LOST), only(LOST), only(LOST)),
        (UNKNOWN, EVERYBODY, UNKNOWN),
        (EVERYBODY, UNKNOWN, UNKNOWN),
        (UNKNOWN, only(ANN), UNKNOWN),
        (NO_ONE, EVERYBODY, NO_ONE),
    ],
)
def test_both(first: Readers, second: Readers, expected: Readers) -> None:
    assert both(first, second, DIRECTORY) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (EVERYBODY, only(ANN), EVERYBODY),
        (EVERYBODY, UNKNOWN, EVERYBODY),
        (only(ANN), only(BOB), only(ANN, BOB)),
        (only(ANN), UNKNOWN, only(ANN)),
        (NO_ONE, UNKNOWN, UNKNOWN),
        (NO_ONE, NO_ONE, NO_ONE),
    ],
)
def test_either(first: Readers, second: Readers, expected: Readers) -> None:
    assert either(first, second) == expected


@pytest.mark.parametrize(
    ("allowed", "denied", "expected"),
    [
        (EVERYBODY, NO_ONE, EVERYBODY),
        (EVERYBODY, only(ANN), NO_ONE),
        (only(ENG), NO_ONE, only(ENG)),
        (only(ENG), only(ANN), only(BOB)),
        (only(ENG), only("email:ann@x"), only(BOB)),
        (only(ALL), only(ENG), only(CY)),
        (only(ANN, BOB), only(ENG), NO_ONE),
        (only(ANN), EVERYBODY, NO_ONE),
        (only(ANN), UNKNOWN, UNKNOWN),
        (only(ANN), only(LOST), UNKNOWN),
        (only(LOST, CY), only(ANN), only(CY)),
        (only(CY), only("group:never heard of"), UNKNOWN),
        (UNKNOWN, only(ANN), UNKNOWN),
    ],
)
def test_without(allowed: Readers, denied: Readers, expected: Readers) -> None:
    assert without(allowed, denied, DIRECTORY) == expected


def test_every_ancestor_restricts() -> None:
    space, page = Rule(only(ALL)), Rule(only(ANN, BOB), deny=only(BOB))
    assert effective([space, page], DIRECTORY) == only(ANN, "email:ann@x")
    assert effective([space, Rule(), page], DIRECTORY) == only(ANN, "email:ann@x")
    assert effective([Rule(only(CY)), page], DIRECTORY) == NO_ONE
    assert effective([], DIRECTORY) == UNKNOWN


def test_groups_that_hold_each_other_come_to_an_end() -> None:
    ring = Directory(groups={"group:a": frozenset({"group:b", ANN}), "group:b": frozenset({"group:a", BOB})})
    assert without(only("group:a"), only(CY), ring) == only(ANN, BOB)


@pytest.mark.parametrize("readers", [NO_ONE, UNKNOWN, only(" ", "")])
def test_a_set_without_anybody_lets_nobody_in(readers: Readers) -> None:
    assert readers.access() == [NOBODY]
    assert EVERYBODY.access() is None


PEOPLE = (ANN, BOB, CY)
NAMES = st.sampled_from([ANN, BOB, CY, ENG, ALL, LOST, "email:ann@x"])
READERS = st.one_of(
    st.just(EVERYBODY), st.just(UNKNOWN), st.frozensets(NAMES, max_size=5).map(lambda names: Readers(names))
)
RULES = st.lists(st.builds(Rule, allow=READERS, deny=READERS), min_size=1, max_size=4)
MEMBERSHIPS = st.fixed_dictionaries(
    {name: st.one_of(st.none(), st.frozensets(NAMES, max_size=4)) for name in (ENG, ALL, LOST)}
)


def directory(groups: dict[str, frozenset[str] | None]) -> Directory:
    return Directory(groups=groups, people=DIRECTORY.people)


def carried(person: str, groups: dict[str, frozenset[str] | None]) -> set[str]:
    """What the person's identity document carries: itself, and the groups that are known to hold it, through all levels."""
    mine = set(DIRECTORY.aliases(person))
    while True:
        more = {name for name, members in groups.items() if members and not mine.isdisjoint(members)} - mine
        if not more:
            return mine
        mine |= more


def seen_by(readers: Readers, groups: dict[str, frozenset[str] | None]) -> set[str]:
    access = readers.access()
    document = {} if access is None else {ALLOW_ACCESS_CONTROL: access}
    return {person for person in PEOPLE if allows(document, carried(person, groups))}


@given(levels=RULES, groups=MEMBERSHIPS)
def test_nobody_sees_what_one_level_keeps_from_them(
    levels: list[Rule], groups: dict[str, frozenset[str] | None]
) -> None:
    seen = seen_by(effective(levels, directory(groups)), groups)
    for level in levels:
        for person in seen:
            mine = carried(person, groups)
            assert level.allow.names is None or not mine.isdisjoint(level.allow.names)
            assert level.deny.names is not None
            assert mine.isdisjoint(level.deny.names)
            assert level.allow.is_known
            assert level.deny.is_known


@given(levels=RULES, groups=MEMBERSHIPS, data=st.data())
def test_a_failed_permission_call_never_widens_access(
    levels: list[Rule], groups: dict[str, frozenset[str] | None], data: st.DataObject
) -> None:
    before = seen_by(effective(levels, directory(groups)), groups)
    place = data.draw(st.integers(0, len(levels) - 1))
    side = data.draw(st.sampled_from(["allow", "deny"]))
    failed = [attrs.evolve(level, **{side: UNKNOWN}) if at == place else level for at, level in enumerate(levels)]
    assert seen_by(effective(failed, directory(groups)), groups) <= before


@given(levels=RULES, groups=MEMBERSHIPS, lost=st.sampled_from([ENG, ALL, LOST]))
def test_members_that_cannot_be_read_never_widen_access(
    levels: list[Rule], groups: dict[str, frozenset[str] | None], lost: str
) -> None:
    fewer = {**groups, lost: None}
    before = seen_by(effective(levels, directory(groups)), groups)
    assert seen_by(effective(levels, directory(fewer)), fewer) <= before


@given(first=READERS, second=READERS, third=READERS)
def test_a_failed_call_never_widens_a_union(first: Readers, second: Readers, third: Readers) -> None:
    groups = dict(DIRECTORY.groups)
    assert seen_by(either(first, UNKNOWN, third), groups) <= seen_by(either(first, second, third), groups)

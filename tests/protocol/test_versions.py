"""The table of versions, and texts that are no versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol.versions import PROTOCOL_VERSION, Compatibility, InvalidVersion, Version, compare


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ("9.5.0", "9.5.0", "same"),
        ("9.5.0", "9.5.0-SNAPSHOT", "same"),
        ("9.5.0", "9.5.0-rc1+build7", "same"),
        ("9.5.0+20260101", "9.5.0", "same"),
        ("8.15.1.3", "8.15.1", "same"),
        ("9.5.2", "9.5.1", "warn"),
        ("9.5.2", "9.5.3", "warn"),
        ("9.5.2", "9.6.0", "warn"),
        ("9.5.2", "9.10.0", "warn"),
        ("9.5.0", "9.4.9", "refuse"),
        ("9.10.0", "9.9.0", "refuse"),
        ("9.5.0", "8.19.0", "refuse"),
        ("9.5.0", "10.0.0", "refuse"),
    ],
)
def test_the_table(ours: str, theirs: str, expected: str) -> None:
    verdict = compare(ours, theirs)
    assert verdict.compatibility == expected
    assert ours in verdict.explanation
    assert theirs in verdict.explanation
    assert verdict.is_refusal == (expected == "refuse")
    assert verdict.is_warning == (expected == "warn")
    if expected in ("warn", "refuse"):
        assert "pgrade" in verdict.explanation or "Bring" in verdict.explanation


def test_the_older_of_two_majors_is_the_one_to_upgrade() -> None:
    assert "Upgrade Elasticsearch" in compare("9.5.0", "8.19.0").explanation
    assert "Upgrade Callboard" in compare("9.5.0", "10.0.0").explanation


def test_serverless_is_not_checked() -> None:
    assert compare("9.5.0", "whatever", build_flavor="serverless").compatibility is Compatibility.UNCHECKED
    assert compare("9.5.0", "8.0.0", build_flavor="default").is_refusal


def test_our_own_version_is_one() -> None:
    assert str(Version.parse(PROTOCOL_VERSION)) == PROTOCOL_VERSION


@given(st.text() | st.from_regex(r"[0-9]{0,3}(\.[0-9]{0,3}){0,4}[-+.a-z0-9]*"))
def test_a_text_is_a_version_or_refused(text: str) -> None:
    try:
        version = Version.parse(text)
    except InvalidVersion as refused:
        assert "looks like" in str(refused)
    else:
        assert compare(str(version), text).compatibility is Compatibility.SAME


@given(*[st.tuples(*[st.integers(0, 12)] * 3)] * 2)
def test_the_verdict_follows_the_numbers(ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    verdict = compare(".".join(map(str, ours)), ".".join(map(str, theirs))).compatibility
    refused = ours[0] != theirs[0] or theirs[1] < ours[1]
    assert verdict == ("refuse" if refused else "same" if ours == theirs else "warn")

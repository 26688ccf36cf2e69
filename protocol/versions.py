"""May this service work with that Elasticsearch? Both speak a version of the protocol, numbered as Elasticsearch is.

What counts is the protocol version that Callboard implements, not its own version.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import attrs

PROTOCOL_VERSION: Final = "9.5.0"
"""The version of the Connector Protocol that Callboard implements."""

SERVERLESS: Final = "serverless"
"""The `version.build_flavor` of an Elasticsearch whose version means nothing."""

_VERSION: Final = re.compile(r"\s*v?(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?(?:[.\-+].*)?\s*", re.ASCII | re.DOTALL)


class InvalidVersion(ValueError):
    """A text that is no version."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"{text[:40]!r} is not a version. A version looks like 9.5.0 or 8.15.1-SNAPSHOT.")


class Compatibility(StrEnum):
    SAME = "same"
    WARN = "warn"
    REFUSE = "refuse"
    UNCHECKED = "unchecked"


@attrs.frozen
class Verdict:
    """Whether to work together, with the sentence that tells a person why and what to do."""

    compatibility: Compatibility
    ours: str
    theirs: str
    explanation: str

    @property
    def is_refusal(self) -> bool:
        return self.compatibility is Compatibility.REFUSE

    @property
    def is_warning(self) -> bool:
        return self.compatibility is Compatibility.WARN


@attrs.frozen(order=True)
class Version:
    major: int
    minor: int
    patch: int = 0

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read a version; qualifiers and build numbers are cut: 8.15.1.3 and 8.15.1-SNAPSHOT are 8.15.1.

        Raises `InvalidVersion`.
        """
        found = _VERSION.fullmatch(text)
        if not found:
            raise InvalidVersion(text)
        return cls(int(found[1]), int(found[2]), int(found[3] or 0))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def compare(ours: str, theirs: str, *, build_flavor: str | None = None) -> Verdict:
    """Judge an Elasticsearch of version `theirs` by a protocol version of ours.

    Raises `InvalidVersion`, but not for a serverless Elasticsearch, whose version is not looked at.
    """
    if build_flavor == SERVERLESS:
        return Verdict(
            Compatibility.UNCHECKED, ours, theirs, "Elasticsearch is serverless; its version is not checked."
        )
    own, other = Version.parse(ours), Version.parse(theirs)
    both = f"Elasticsearch is {theirs}, and Callboard speaks the connector protocol of {ours}"
    if own.major != other.major:
        older = "Elasticsearch" if other.major < own.major else "Callboard"
        return Verdict(
            Compatibility.REFUSE,
            ours,
            theirs,
            f"{both}: another major version, so they do not understand each other. Upgrade {older}.",
        )
    if other.minor < own.minor:
        return Verdict(
            Compatibility.REFUSE,
            ours,
            theirs,
            f"{both}: Elasticsearch is older and lacks what Callboard relies on. "
            f"Upgrade Elasticsearch to {own.major}.{own.minor} or later, or use an older Callboard.",
        )
    if other.minor > own.minor:
        return Verdict(
            Compatibility.WARN,
            ours,
            theirs,
            f"{both}: Elasticsearch is newer. This works, without what is new. Upgrade Callboard when you can.",
        )
    if other.patch != own.patch:
        return Verdict(
            Compatibility.WARN,
            ours,
            theirs,
            f"{both}: they differ in corrections only. This works. Bring both to the same version when you can.",
        )
    return Verdict(Compatibility.SAME, ours, theirs, f"{both}: the same version.")

"""Who lists which partition of a shared job: what a lease says, when it counts as given up, and which one to take next.

A partition of a shared job has one document: its lease and its head (checkpoint and counts) in one. Whoever holds the lease writes
the document only under the sequence number of its own last write, so a holder that was given up for dead can save nothing any
more, however late its requests arrive. Nobody compares clocks of two machines: a lease counts as given up once an observer has
seen it unchanged for the length of a lease, and only the time in which the observer really could look counts, so that an
outage of Elasticsearch ends no lease. No input, no output, no clock of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

LOOK_GAP_S_MAX = 5.0
"""More time than this between two looks does not count: nobody knows what the holder could have written meanwhile."""

State: TypeAlias = Literal["free", "held", "ended"]


@attrs.frozen
class Lease:
    """A lease as a look shows it."""

    id: str
    key: str
    """Of the partition."""
    seq_no: int
    state: State
    epoch: str
    """Which taking of the lease this is; empty if nobody holds it."""
    setup: str
    """Fingerprint of what decides how its documents are made."""
    by_owner: bool = False
    """Its holder runs the whole job."""


@attrs.define
class _Seen:
    seq_no: int
    age_s: float = 0.0


class Observer:
    """Judges by its own clock alone which leases their holders have given up."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._seen: dict[str, _Seen] = {}
        self._looked_at_s: float | None = None

    def look(self, held: Iterable[Lease], now_s: float) -> set[str]:
        """Take note of all leases that are held now; return the ids of those that count as given up."""
        passed_s = 0.0 if self._looked_at_s is None else min(now_s - self._looked_at_s, LOOK_GAP_S_MAX)
        self._looked_at_s = now_s
        seen: dict[str, _Seen] = {}
        for lease in held:
            before = self._seen.get(lease.id)
            is_same = before is not None and before.seq_no == lease.seq_no
            seen[lease.id] = _Seen(lease.seq_no, before.age_s + passed_s if before is not None and is_same else 0.0)
        self._seen = seen
        return {one for one, each in seen.items() if each.age_s >= self._lease_s}


def choose(
    leases: Sequence[Lease],
    given_up: Collection[str],
    *,
    mine: Collection[str],
    setup: str,
    is_owner: bool,
) -> list[Lease]:
    """Say which leases to take, best first. `mine` are the epochs held here; `given_up` comes from the observer.

    Whoever runs the job takes everything that is free, and at once what an earlier owner held, for that one has lost the job. A
    helper takes only what it would make the same documents of.
    """
    return [
        lease
        for lease in leases
        if lease.epoch not in mine
        and (is_owner or lease.setup == setup)
        and (
            lease.state == "free" or (lease.state == "held" and (lease.id in given_up or (is_owner and lease.by_owner)))
        )
    ]


# What the document of a lease becomes. All are the next whole document, or None if that may not be.


def named(head: Mapping[str, Any], *, data: Mapping[str, Any], title: str, setup: str) -> dict[str, Any]:
    """A partition that the owner has named, for anybody to take. `head` may be that of an earlier run of the job.

    What was read to its end without a hole stays so; all else is to be gone on with.
    """
    fresh = {**head, "data": dict(data), "title": title, "setup": setup}
    if head.get("lease") == "held":
        return fresh
    if head.get("closed"):
        return {**fresh, "lease": "ended", "outcome": "listed", "epoch": "", "by_owner": False}
    return {
        **fresh, "lease": "free", "epoch": "", "by_owner": False, "outcome": "", "why": "", "containers_failed": 0,
        "failures": [],
    }  # fmt: skip


def taken(
    document: Mapping[str, Any], seen_seq_no: int, seq_no: int, *, epoch: str, worker: str, setup: str, by_owner: bool
) -> dict[str, Any] | None:
    """The lease taken by us; None if it is not what it was when it was chosen."""
    if seen_seq_no != seq_no or document.get("lease") not in ("free", "held"):
        return None
    return {**document, "lease": "held", "epoch": epoch, "worker": worker, "setup": setup, "by_owner": by_owner}


def released() -> dict[str, Any]:
    """What changes in a lease that its holder gives back."""
    return {"lease": "free", "epoch": "", "by_owner": False}


def ended(
    outcome: Literal["listed", "broken"],
    *,
    why: str,
    containers_failed: int,
    counts: Mapping[str, int],
    failures: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What changes in a lease whose partition was read as far as it could be. `counts` are those of all that was listed.

    `outcome` is `broken` where the listing broke off; one that came to its end may still have holes (`containers_failed`).
    """
    return {
        "lease": "ended",
        "epoch": "",
        "by_owner": False,
        "outcome": outcome,
        "why": why,
        "containers_failed": containers_failed,
        "all_counts": dict(counts),
        "failures": [dict(one) for one in failures],
    }

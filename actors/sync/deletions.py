"""Which deletions may go ahead: none that follow from a listing with a hole, and no unusual number without a second word.

A document that is in the index and was not listed is gone from the source only if the partition it came from was listed to its
end. Where a document came from is known from the ledger; one that no ledger knows may have come from anywhere, so it goes only
if every partition closed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import attrs

from .settings import DeletionLimits


@attrs.frozen
class Verdict:
    """What becomes of the deletions of one sync."""

    action: Literal["delete", "hold_back", "nothing"]
    why: str = ""


@attrs.frozen
class Listed:
    """Which partitions were listed, by hash."""

    closed: Collection[int]
    """Listed to their end."""
    named: Collection[int]
    """All that the source named."""
    all_named: bool
    """The source said that there are no others."""

    @property
    def all_closed(self) -> bool:
        return self.all_named and len(self.closed) == len(self.named)


def may_delete(partition: int, listed: Listed) -> bool:
    """Tell whether a document that was not listed is known to be gone. Partition 0: nobody knows where it came from."""
    if listed.all_closed:
        return True
    if not partition:
        return False
    # A partition that the source no longer names at all (a table that was dropped) is gone with all it held.
    return partition in listed.closed or (listed.all_named and partition not in listed.named)


def judge_deletions(
    count: int,
    in_index: int,
    limits: DeletionLimits,
    *,
    confirmed: bool = False,
    agreed: bool = False,
) -> Verdict:
    """Decide about `count` deletions from an index that held `in_index` documents when the sync began.

    `confirmed`: a person has said yes to deletions of this connector. `agreed`: the last full sync held back the same ones.
    """
    if count == 0:
        return Verdict("nothing")
    if count <= limits.documents_max or count <= limits.share_max * in_index:
        return Verdict("delete")
    why = (
        f"{count} of {in_index} documents are gone from the source, more than {limits.documents_max} documents and "
        f"{limits.share_max:.0%} of the index"
    )
    if confirmed:
        return Verdict("delete", f"{why}; confirmed")
    if limits.release == "next_full_sync" and agreed:
        return Verdict("delete", f"{why}; this full sync agrees with the last one")
    way = (
        "the next full sync that finds the same will delete them"
        if limits.release == "next_full_sync"
        else "nothing is deleted until somebody confirms it (callboard job confirm-deletes)"
    )
    return Verdict("hold_back", f"{why}; {way}")

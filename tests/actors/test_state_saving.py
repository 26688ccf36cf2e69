"""A checkpoint that could not be saved is saved whole the next time."""

from __future__ import annotations

import attrs
import pytest

from callboard import node
from callboard.actors.sync.segments import PartitionProgress
from callboard.actors.sync.state import JobState
from callboard.node.faults import FaultyApp, Match, Rule, ServerFaultPlan, Status
from callboard.protocol.store import RetryPolicy, StoreError, Target, open_store


@pytest.mark.parametrize("writes_before_the_failure", [0, 1])
async def test_listed_ids_survive_a_failed_save(writes_before_the_failure: int) -> None:
    async with node.open_node(port=None) as opened:
        faulty = FaultyApp(opened.app, ServerFaultPlan())
        target = Target(embedded=faulty, retries=RetryPolicy(patience_s=0))
        async with open_store(target) as store:
            state = JobState(store, "job")
            await state.open()
            partition = PartitionProgress("p", 1, resumable=True)
            assert partition.current.seen is not None
            partition.current.seen.extend([11, 12, 13])
            partition.checkpoint("behind 13")
            rule = Rule(effect=Status(status=503), match=Match(path="*/_bulk"), skip=writes_before_the_failure)
            faulty.use(ServerFaultPlan((rule,)))
            with pytest.raises(StoreError):
                await state.save(partition, is_closed=False)
            assert partition.has_new_checkpoint
            faulty.use(ServerFaultPlan())
            partition.finish()
            await state.save(partition, is_closed=True)
            later = JobState(store, "job")
            (found,) = (await later.load()).values()
            assert (found.is_closed, found.checkpoint) == (True, "behind 13")
            seen = [one async for hashes in later.seen() for one in hashes]
            assert set(seen) == {11, 12, 13}
            assert attrs.asdict(found.counts)["listed"] == 0

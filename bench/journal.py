"""What it costs a sync that its events are told, kept in the journal and counted in the metrics.

    python bench/journal.py [DOCUMENTS] [ROUNDS] [URL]

Each round syncs so many small documents twice, into an in-process node or the Elasticsearch at URL: once with nobody listening,
once with the journal writing into its index every second and the metrics counting. The best of the rounds by processor time of
this process counts. The first rows are of the parts alone.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import trio

from callboard.actors.journal import JOURNAL_INDEX, JournalTask, Queue, Teller, telling
from callboard.actors.journal.events import BulkAnswered, PageCompared, PartitionOpened, Throttled
from callboard.actors.operations.metrics import Metrics
from callboard.actors.sync import sync
from callboard.node import open_node
from callboard.protocol.store import Store, Target, open_store
from callboard.runtime import ChildSpec, open_system
from callboard.runtime.supervisor import Supervisor
from callboard.sources.source import Document, Partition, Source

PAGE = 500
EVENTS = 20_000


class Pages(Source[None]):
    service_type = "pages"
    name = "Pages"

    def __init__(self, count: int) -> None:
        super().__init__(None)
        self.count = count

    async def ping(self) -> None:
        return None

    async def documents(self, partition: Partition, checkpoint: Any = None) -> AsyncGenerator[list[Document], None]:
        for first in range(0, self.count, PAGE):
            yield [Document(f"d{number}", {"number": number}) for number in range(first, first + PAGE)]


def cost_of_telling() -> list[tuple[str, float]]:
    """Nanoseconds for each event, with the queue and the metrics listening."""
    rows = []
    for happening in (
        PageCompared(partition=".", documents=500, seconds=0.1),
        BulkAnswered(documents=500, size_bytes=500_000, seconds=0.1, outcome="ok"),
        Throttled(by="Elasticsearch", status=429, wait_s=1.0),
        PartitionOpened(partition="."),
    ):
        queue = Queue(queued_max=2 * EVENTS)
        teller = Teller(listeners=[queue.offer, Metrics().listen])
        began = time.process_time()
        for _ in range(EVENTS):
            teller.tell(happening, connector_id="c", job_id="")
        rows.append((f"tell {happening.kind}", (time.process_time() - began) / EVENTS * 1e9))
    return rows


async def one_sync(store: Store, count: int, told: bool) -> tuple[float, int]:
    """Processor seconds of a first sync, and how many entries it made."""
    index = f"bench-journal-{uuid.uuid4().hex[:8]}"
    queue = Queue()
    teller = Teller(listeners=[queue.offer, Metrics().listen]) if told else None
    began = time.process_time()
    async with open_system("bench", Supervisor([ChildSpec(name="journal", start=lambda: JournalTask(store, queue))])):
        with telling(teller, connector_id="bench", job_id=index):
            report = await sync(Pages(count), store, index=index)
    assert report.indexed == count, report
    taken = time.process_time() - began
    await store.client.indices.delete(index=index)
    return taken, queue.written


async def main(count: int, rounds: int, url: str | None) -> None:
    print(f"{'part':<28}{'cost':>14}")
    for name, cost in cost_of_telling():
        print(f"{name:<28}{cost:>11,.0f} ns")
    async with AsyncExitStack() as stack:
        target = Target(url) if url else Target(embedded=(await stack.enter_async_context(open_node(port=None))).app)
        store = await stack.enter_async_context(open_store(target))
        best = {False: float("inf"), True: float("inf")}
        entries = 0
        for _ in range(rounds):
            for told in (False, True):
                taken, written = await one_sync(store, count, told)
                best[told] = min(best[told], taken)
                entries = max(entries, written)
        if url:
            query = {"term": {"connector_id": "bench"}}
            await store.content.refresh(JOURNAL_INDEX)
            await store.content.delete_by_query(JOURNAL_INDEX, query)
    print(f"{'sync, nobody listens':<28}{best[False]:>12.2f} s")
    print(
        f"{'sync, journal and metrics':<28}{best[True]:>12.2f} s   {best[True] / best[False] - 1:+.1%}, {entries} entries"
    )


if __name__ == "__main__":
    given = sys.argv[1:]
    os.environ.setdefault("PYTHONHASHSEED", "0")
    trio.run(
        main,
        int(given[0]) if given else 100_000,
        int(given[1]) if len(given) > 1 else 3,
        given[2] if len(given) > 2 else None,
    )

"""A million messages with random crashes: each is accounted for, and nothing is left behind."""

from __future__ import annotations

import gc
import random
from pathlib import Path

import attrs
import trio

from callboard.runtime import (
    Actor,
    ActorRef,
    Backoff,
    ChildSpec,
    Event,
    MailboxFull,
    handles,
    open_system,
    run_simulated,
)

OPEN = Path("/proc/self/fd")
MESSAGES = 1_000_000
ACTORS = 30
BACKOFF = Backoff(first_s=0.01, cap_s=0.1, healthy_s=0, give_up_after=2)


@attrs.frozen
class Work:
    number: int


class Worker(Actor):
    mailbox_capacity = 64
    chance = random.Random(0)

    def __init__(self, counts: dict[str, int]) -> None:
        self.counts = counts

    @handles
    async def on_work(self, message: Work) -> None:
        if self.chance.random() < 0.005:
            self.counts["crashed"] += 1
            raise ValueError("by chance")
        if self.chance.random() < 0.01:
            await trio.sleep(0.001)
        self.counts["handled"] += 1


class Dropper(Worker):
    overflow = "drop_oldest"


class Refuser(Worker):
    overflow = "fail"


KINDS: tuple[type[Worker], ...] = (Worker, Dropper, Refuser)


async def soak(messages: int) -> dict[str, int]:
    counts = dict.fromkeys(("sent", "handled", "crashed", "dead", "refused", "crash events", "cancelled"), 0)
    Worker.chance = random.Random(1)
    note = Work(1)

    def count(event: Event) -> None:
        counts["dead"] += event.kind == "dead_letter"
        counts["crash events"] += event.kind == "crashed"

    async with open_system() as system:
        with system.events.calling(count):

            async def fill(at: int) -> None:
                kind = KINDS[at % 3]
                name, chance = str(at), random.Random(at)
                spec = ChildSpec(name=name, start=lambda: kind(counts), backoff=BACKOFF)
                ref: ActorRef[Worker] = await system.spawn(spec)
                for number in range(messages // ACTORS):
                    if number % 10_000 == 9_999:
                        # Another one takes its place; what waited in the mailbox becomes dead letters.
                        await ref.stop()
                        ref = await system.spawn(spec)
                    counts["sent"] += 1
                    if chance.random() < 0.1:
                        await ref.tell(note) if kind is not Refuser else await tell_or_count(ref)
                        continue
                    try:
                        ref.tell_nowait(note)
                    except MailboxFull:
                        counts["refused"] += 1
                        await trio.sleep(0.01)
                await ref.stop()

            async def tell_or_count(ref: ActorRef[Worker]) -> None:
                try:
                    await ref.tell(note)
                except MailboxFull:
                    counts["refused"] += 1

            async with trio.open_nursery() as nursery:
                for at in range(ACTORS):
                    nursery.start_soon(fill, at)
    counts["tasks"] = trio.lowlevel.current_statistics().tasks_living
    return counts


def test_a_million_messages_are_all_accounted_for_and_leave_nothing_behind() -> None:
    first = run_simulated(soak, 30_000, seed=1)
    gc.collect()
    objects, descriptors = len(gc.get_objects()), len(list(OPEN.iterdir()))
    counts = run_simulated(soak, MESSAGES, seed=2)
    gc.collect()
    assert counts["sent"] == MESSAGES // ACTORS * ACTORS
    # What was dropped by policy is a dead letter, too.
    assert counts["handled"] + counts["crashed"] + counts["dead"] + counts["refused"] == counts["sent"], counts
    assert counts["crashed"] == counts["crash events"] > 1000
    assert min(counts["dead"], counts["refused"]) > 1000
    assert counts["tasks"] == first["tasks"]
    assert len(list(OPEN.iterdir())) == descriptors
    # Thirty times the messages, and no more objects but what the interpreter keeps for itself.
    assert len(gc.get_objects()) - objects < 500

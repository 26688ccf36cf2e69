"""Every kind of rule of a fault plan, what it tells, and that it does nothing else."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from callboard import FaultPlan
from callboard.runtime import (
    Actor,
    ActorDied,
    AskTimeout,
    Backoff,
    Budget,
    ChildSpec,
    Interrupted,
    MailboxFull,
    Request,
    StartFailed,
    StopReason,
    Stream,
    Task,
    WorkerCrashed,
    WorkerTimeout,
    handles,
    now,
    open_system,
    random,
    run_simulated,
    worker_process,
)
from callboard.runtime.faults import (
    Cancel,
    Crash,
    Delay,
    Drop,
    Exhaust,
    FailWorker,
    Fill,
    InjectedFault,
    InvalidPlan,
    JumpClock,
    Match,
    Reorder,
    Rule,
    Stall,
    read_runtime_plan,
)

AT_ONCE = Backoff(first_s=0.0, jitter=0.0, give_up_after=1000)


@attrs.frozen
class Note:
    text: str


@attrs.frozen
class Count(Request[int]):
    pass


class Writer(Actor):
    def __init__(self, diary: list[str]) -> None:
        self.diary = diary

    async def started(self) -> None:
        self.diary.append("start")

    async def stopping(self, reason: StopReason) -> None:
        self.diary.append(f"stop {reason.kind}")

    @handles
    async def on_note(self, message: Note) -> None:
        self.diary.append(message.text)

    @handles
    async def on_count(self, message: Count) -> int:
        return len(self.diary)


class Newest(Writer):
    overflow = "drop_oldest"


class Narrow(Writer):
    mailbox_capacity = 4


def child(diary: list[str], name: str = "a", actor: type[Writer] = Writer, **options: Any) -> ChildSpec[Any]:
    return ChildSpec(name=name, start=lambda: actor(diary), backoff=AT_ONCE, **options)


def plan(effect: Any, seed: int = 1, match: Match | None = None, **conditions: Any) -> FaultPlan:
    return FaultPlan([Rule(effect=effect, match=match or Match(), **conditions)], seed)


@pytest.mark.parametrize(("when", "left"), [("before", []), ("after", ["x"])])
async def test_a_handler_crashes_before_or_after(autojump_clock: MockClock, when: str, left: list[str]) -> None:
    diary: list[str] = []
    seen: list[Any] = []
    rule = plan(Crash(when=when), match=Match(message="Note"), times=1)
    async with open_system(faults=rule) as system:
        with system.events.calling(lambda event: seen.append(event) if event.kind == "fault" else None):
            ref = await system.spawn(child(diary))
            await ref.tell(Note("x"))
            await ref.tell(Note("y"))
            await ref.ask(Count(), timeout_s=5)
        assert diary == ["start", *left, "stop error", "start", "y"]
        assert [(event.path, event.detail.effect, event.detail.what) for event in seen] == [
            ("callboard/a", "crash", "Note")
        ]
        assert system.faults is not None
        assert system.faults.fired == {"0": 1}


async def test_the_asker_learns_of_a_crash_and_an_own_error_can_be_raised(autojump_clock: MockClock) -> None:
    async with open_system(faults=plan(Crash(when="after", error=lambda: OSError("disk")), times=1)) as system:
        ref = await system.spawn(child([]))
        with pytest.raises(ActorDied) as died:
            await ref.ask(Count(), timeout_s=5)
        assert isinstance(died.value.__cause__, OSError)
        assert await ref.ask(Count(), timeout_s=5) == 3


async def test_a_start_crashes(autojump_clock: MockClock) -> None:
    async with open_system(faults=plan(Crash(), match=Match(point="start"), times=1)) as system:
        with pytest.raises(StartFailed):
            await system.spawn(child([]))
        await system.spawn(child([]))


async def test_a_clean_up_crashes_and_is_told(autojump_clock: MockClock) -> None:
    crashed: list[Any] = []
    diary: list[str] = []
    async with open_system(faults=plan(Crash(), match=Match(point="stop"))) as system:
        ref = await system.spawn(child(diary))
        with system.events.calling(lambda event: crashed.append(event) if event.kind == "crashed" else None):
            await ref.stop()
    assert diary == ["start"]
    assert len(crashed) == 1


async def test_delay_and_stall_hold_a_handler_up(autojump_clock: MockClock) -> None:
    both = plan(Delay(seconds=30), times=1) + plan(Stall(), skip=1)
    async with open_system(faults=both) as system:
        ref = await system.spawn(child([]))
        began_s = trio.current_time()
        await ref.ask(Count(), timeout_s=60)
        assert trio.current_time() - began_s == 30
        with pytest.raises(AskTimeout):
            await ref.ask(Count(), timeout_s=3600)
        ref.cancel()


async def test_only_what_may_be_lost_is_dropped(autojump_clock: MockClock) -> None:
    diary: list[str] = []
    loose: list[str] = []
    dead: list[Any] = []
    async with open_system(faults=plan(Drop(), until_s=10)) as system:
        with system.events.calling(lambda event: dead.append(event) if event.kind == "dead_letter" else None):
            ref = await system.spawn(child(diary))
            newest = await system.spawn(child(loose, "b", Newest))
            await ref.tell(Note("kept"))
            await newest.tell(Note("lost"))
            with pytest.raises(AskTimeout):
                await ref.ask(Count(), timeout_s=20)
            assert await ref.ask(Count(), timeout_s=20) == 2
        assert (diary, loose) == (["start", "kept"], ["start"])
        assert [event.detail for event in dead] == [Note("lost")]


def test_reordering_keeps_each_sender_in_order() -> None:
    diary: list[str] = []

    async def send(ref: Any, who: str) -> None:
        for number in range(20):
            ref.tell_nowait(Note(f"{who}{number:02}"))

    async def main() -> int:
        async with open_system(faults=plan(Reorder(), chance=0.7)) as system:
            ref = await system.spawn(child(diary))
            async with trio.open_nursery() as nursery:
                for who in "abc":
                    nursery.start_soon(send, ref, who)
            await ref.ask(Count(), timeout_s=5)
            assert system.faults is not None
            return system.faults.fired["0"]

    fired = run_simulated(main, seed=1)
    assert fired >= 2
    notes = [text for text in diary if text[-1].isdigit()]
    for who in "abc":
        assert [text for text in notes if text[0] == who] == [f"{who}{number:02}" for number in range(20)]
    assert len(notes) == 60
    assert sum(one[0] != other[0] for one, other in itertools.pairwise(notes)) > 2


async def test_a_filled_mailbox_refuses_and_recovers(autojump_clock: MockClock) -> None:
    diary: list[str] = []
    async with open_system(faults=plan(Fill(), times=1)) as system:
        ref = await system.spawn(child(diary, actor=Narrow))
        ref.tell_nowait(Note("first"))
        with pytest.raises(MailboxFull):
            ref.tell_nowait(Note("refused"))
        await ref.tell(Note("waited"))
        await ref.ask(Count(), timeout_s=5)
    assert diary[:3] == ["start", "first", "waited"]


class Counting(Task):
    def __init__(self, steps: list[int]) -> None:
        self.steps = steps

    async def run(self, context: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._count)

    async def _count(self) -> None:
        for number in range(10):
            await trio.lowlevel.checkpoint()
            self.steps.append(number)


@pytest.mark.parametrize("at", range(1, 12))
async def test_a_task_is_cancelled_at_its_nth_checkpoint(autojump_clock: MockClock, at: int) -> None:
    steps: list[int] = []
    async with open_system(faults=plan(Cancel(at_checkpoint=at))) as system:
        spec = ChildSpec(name="t", start=lambda: Counting(steps), restart="temporary")
        ref = await system.spawn(spec)
        assert (await ref.monitor()).kind == "shutdown"
    assert steps == list(range(max(0, at - 2)))


async def test_an_actor_is_cancelled_at_a_time_and_lives_again(autojump_clock: MockClock) -> None:
    diary: list[str] = []
    rule = plan(Cancel(), match=Match(actor="a", point="time"), from_s=60)
    async with open_system(faults=rule) as system:
        ref = await system.spawn(child(diary))
        await trio.sleep(61)
        await ref.ask(Count(), timeout_s=5)
    assert diary[:3] == ["start", "stop shutdown", "start"]


@pytest.mark.parametrize("seconds", [86_400, -3600])
async def test_the_clock_jumps_at_its_time_and_only_inside(autojump_clock: MockClock, seconds: float) -> None:
    async with open_system(faults=plan(JumpClock(seconds=seconds), from_s=30)):
        before = now()
        await trio.sleep(29)
        assert abs((now() - before).total_seconds()) < 20
        await trio.sleep(2)
        assert abs((now() - before).total_seconds() - seconds) < 20
    assert abs((now() - before).total_seconds()) < 20


async def test_a_stream_breaks_off_where_its_sender_crashes(autojump_clock: MockClock) -> None:
    received: list[int] = []
    async with open_system(faults=plan(Crash(), match=Match(point="send", stream="pages"), skip=2)):
        stream: Stream[int] = Stream("pages")

        async def feed() -> None:
            async with stream.sender() as out:
                for number in range(5):
                    await out.send([number])
                await out.finish()

        with pytest.RaisesGroup(Interrupted, pytest.RaisesExc(Exception, match="fault rule"), flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed)

                async def drain() -> None:
                    with trio.CancelScope(shield=True):
                        async with stream.receiver() as batches:
                            async for batch in batches:
                                received.extend(batch.items)

                nursery.start_soon(drain)
    assert received == [0, 1]


async def test_a_receiver_crashes_before_and_after_a_batch_and_goes_on(autojump_clock: MockClock) -> None:
    at_receive = Match(point="receive", stream="pages")
    rules = plan(Crash(), match=at_receive, skip=1, times=1) + plan(
        Crash(when="after"), match=at_receive, skip=2, times=1
    )
    received: list[int] = []
    crashes = 0
    async with open_system(faults=rules), trio.open_nursery() as nursery:
        stream: Stream[int] = Stream("pages")

        async def feed() -> None:
            async with stream.sender() as out:
                for number in range(5):
                    await out.send([number])
                    await out.checkpoint(number)
                await out.finish()

        nursery.start_soon(feed)
        async with stream.receiver() as batches:
            while True:
                try:
                    async for batch in batches:
                        received.extend(batch.items)
                        batch.settle()
                    break
                except InjectedFault:
                    crashes += 1
    # The first crash took nothing; the second took the batch with it, which no checkpoint may pass.
    assert (received, crashes) == ([0, 2, 3, 4], 2)
    assert (stream.settled_checkpoint, stream.items_done) == (0, 4)


async def test_a_receiver_is_late(autojump_clock: MockClock) -> None:
    async with open_system(faults=plan(Delay(seconds=30), match=Match(point="receive"), times=1)) as system:
        stream: Stream[int] = Stream("pages", batches_max=1)
        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def feed() -> None:
                async with stream.sender() as out:
                    for number in range(3):
                        await out.send([number])
                    await out.finish()

            nursery.start_soon(feed)
            async with stream.receiver() as batches:
                assert [number async for batch in batches for number in batch.items] == [0, 1, 2]
        assert trio.current_time() - began_s == 30
        assert system.faults is not None
        assert [(one.point, one.what) for one in system.faults.happened] == [("receive", "pages")]


async def test_what_happens_at_a_time_comes_again(autojump_clock: MockClock) -> None:
    rules = plan(Cancel(), match=Match(actor="a", point="time"), from_s=60, every_s=100, times=3)
    async with open_system(faults=rules) as system:
        await system.spawn(child([]))
        await trio.sleep(1000)
        assert system.faults is not None
        assert [one.at_s for one in system.faults.happened] == [60, 160, 260]


async def test_a_window_comes_again(autojump_clock: MockClock) -> None:
    rules = plan(Delay(seconds=1), match=Match(message="Count"), from_s=10, until_s=20, every_s=100)
    late: list[float] = []
    async with open_system(faults=rules) as system:
        ref = await system.spawn(child([]))
        for _ in range(30):
            began_s = trio.current_time()
            await ref.ask(Count(), timeout_s=5)
            if trio.current_time() > began_s:
                late.append(began_s)
            await trio.sleep_until(began_s + 10)
    assert [round(at_s) // 10 * 10 % 100 for at_s in late] == [10, 10, 10]


async def test_the_memory_budget_is_exhausted_for_a_while(autojump_clock: MockClock) -> None:
    async with open_system(faults=plan(Exhaust(seconds=90), times=1)):
        budget = Budget(1000)
        holder = budget.holder("job")
        began_s = trio.current_time()
        with await holder.take(100):
            assert trio.current_time() - began_s == 90
            assert budget.held_bytes == 100
        assert budget.held_bytes == 0


@pytest.mark.parametrize(("how", "error"), [("crash", WorkerCrashed), ("timeout", WorkerTimeout)])
async def test_a_worker_process_fails(autojump_clock: MockClock, how: str, error: type[Exception]) -> None:
    async with open_system(faults=plan(FailWorker(how=how), match=Match(worker="pow"))):
        with pytest.raises(error):
            await worker_process(pow, 2, 3, timeout_s=5)


async def test_an_empty_plan_heals(autojump_clock: MockClock) -> None:
    async with open_system(faults=plan(Stall())) as system:
        ref = await system.spawn(child([]))
        assert system.faults is not None
        system.faults.use(FaultPlan())
        await ref.ask(Count(), timeout_s=1)


def lived(seed: int) -> list[Any]:
    async def main() -> list[Any]:
        rules = plan(Crash(), seed, chance=0.3) + plan(Delay(seconds=2), chance=0.3) + plan(Reorder(), chance=0.4)
        diary: list[str] = []
        async with open_system(faults=rules) as system:
            ref = await system.spawn(child(diary))

            async def send(who: str) -> None:
                for number in range(20):
                    await ref.tell(Note(f"{who}{number}"))
                    await trio.sleep(random().random())

            async with trio.open_nursery() as nursery:
                for who in "ab":
                    nursery.start_soon(send, who)
            await trio.sleep(100)
            assert system.faults is not None
            return [*diary, *system.faults.happened]

    return run_simulated(main, seed=seed)


def test_a_seed_replays_exactly_and_another_differs() -> None:
    assert lived(3) == lived(3)
    assert lived(3) != lived(4)


def test_to_leave_out_one_rule_changes_no_draw_of_the_others() -> None:
    async def crashes(rules: FaultPlan) -> list[str]:
        async with open_system(faults=rules) as system:
            ref = await system.spawn(child([]))
            for number in range(50):
                await ref.tell(Note(str(number)))
            await trio.sleep(100)
            assert system.faults is not None
            return [one.rule for one in system.faults.happened if one.rule == "b"]

    a = Rule(effect=Delay(seconds=0.1), chance=0.5, name="a")
    b = Rule(effect=Crash(), chance=0.2, name="b")
    both = run_simulated(crashes, FaultPlan([a, b], 5), seed=5)
    assert both
    assert both == run_simulated(crashes, FaultPlan([b], 5), seed=5)


async def test_without_a_plan_there_is_no_injector() -> None:
    async with open_system() as system:
        assert system.faults is None
        assert Stream("s")._faults is None


def test_without_a_plan_nothing_of_it_is_even_imported() -> None:
    script = """
import sys, trio
from callboard.runtime import Actor, Budget, ChildSpec, Stream, open_system

async def main():
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="a", start=Actor))
        assert "Faulty" not in type(ref._mailbox.data).__name__
        stream = Stream("s", budget=Budget(10).holder("h"))
        async with stream.sender() as out:
            await out.send([1], 1)
            await out.finish()

trio.run(main)
assert not [name for name in sys.modules if name.startswith("callboard.runtime.faults")]
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_plan_is_read_from_plain_data() -> None:
    content = {
        "seed": 7,
        "rules": [
            {"match": {"actor": "keeper-*"}, "chance": 0.1, "do": {"crash": {"when": "after"}}},
            {"match": {"point": "receive"}, "do": "stall", "from_s": 5, "until_s": 6, "every_s": 60},
        ],
    }
    assert read_runtime_plan(content) == FaultPlan(
        (
            Rule(effect=Crash(when="after"), match=Match(actor="keeper-*"), chance=0.1),
            Rule(effect=Stall(), match=Match(point="receive"), from_s=5, until_s=6, every_s=60),
        ),
        7,
    )


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"do": "explode"}, r"rules\[0\].do: unknown effect 'explode'; known are cancel, crash"),
        ({"do": "stal"}, r"rules\[0\].do: unknown effect 'stal'; did you mean 'stall'\?"),
        ({"do": {"crash": {"when": "never"}}}, "`before` or `after`"),
        ({"do": "delay"}, "needs seconds"),
        ({"do": {"delay": {"seconds": "long"}}}, "must be a number"),
        ({"do": "drop", "match": {"point": "start"}}, "drop can happen at mailbox, not at start"),
        ({"do": "stall", "match": {"point": "nowhere"}}, "point must be one of"),
        ({"do": "stall", "chance": 2}, "between 0 and 1"),
        ({"do": "stall", "match": {"actr": "x"}}, r"rules\[0\].match: unknown key 'actr'; did you mean 'actor'\?"),
        ({"do": "crash", "match": {"point": "recieve"}}, "did you mean 'receive'"),
        ({"do": "crash", "from_s": 0, "until_s": 9, "every_s": 5}, "must not be shorter"),
    ],
)
def test_a_bad_plan_says_what_is_wrong(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidPlan, match=said):
        read_runtime_plan({"rules": [rule]})


@pytest.mark.parametrize(
    "number", [10**400, -(10**400), float("inf"), float("nan"), 1e300], ids=["huge", "negative", "inf", "nan", "1e300"]
)
def test_a_number_beyond_all_measure_is_refused_by_its_place(number: float) -> None:
    with pytest.raises(InvalidPlan, match=r"rules\[0\].every must be a number of at most"):
        read_runtime_plan({"rules": [{"every": number, "do": "crash"}]})

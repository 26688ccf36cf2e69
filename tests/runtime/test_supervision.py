"""What supervisors do when children fail: restarts, pauses, groups, giving up, ends in order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio

from callboard.runtime import (
    Actor,
    Backoff,
    ChildSpec,
    Context,
    RestartsExhausted,
    StartFailed,
    StopReason,
    Supervisor,
    Task,
    TreeNode,
    open_system,
)

from .conftest import AT_ONCE, Crash, Finish, Note, Recorder, Recorders, Sleep


async def run_until_it_fails(spec: ChildSpec) -> None:
    async with open_system() as system:
        await system.spawn(spec)
        await trio.sleep_forever()


async def settle() -> None:
    await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("restart", "after_error", "after_finish"),
    [("permanent", True, True), ("transient", True, False), ("temporary", False, False)],
)
async def test_who_is_started_again(
    autojump_clock: Any, recorders: Recorders, restart: Any, after_error: bool, after_finish: bool
) -> None:
    async with open_system() as system:
        for name, message, expected in (("e", Crash(), after_error), ("f", Finish(), after_finish)):
            ref = await system.spawn(recorders.spec(name, restart=restart))
            await ref.tell(message)
            await settle()
            assert (system.find(name) is not None) == expected
            assert (ref.reason is None) == expected


async def test_messages_survive_a_restart_and_the_one_that_crashed_does_not(
    autojump_clock: Any, recorders: Recorders
) -> None:
    async with open_system() as system:
        ref = await system.spawn(recorders.spec("a"))
        for message in (Note("1"), Crash(), Note("2"), Note("3")):
            ref.tell_nowait(message)
        await settle()
        assert recorders.diary == ["start a", "1", "stop a", "start a", "2", "3"]
        (node,) = system.tree().children
        assert (node.restarts, node.last_error, node.processed) == (1, "ValueError: boom", 3)


async def test_pauses_grow_up_to_the_cap(autojump_clock: Any) -> None:
    starts: list[float] = []

    class Fails(Task):
        async def run(self, context: Context) -> None:
            starts.append(trio.current_time())
            raise OSError("refused")

    backoff = Backoff(first_s=1, factor=3, cap_s=10, jitter=0, give_up_after=6)
    with pytest.raises(RestartsExhausted, match="callboard/a failed 6 times without a healthy run: OSError: refused"):
        await run_until_it_fails(ChildSpec(name="a", start=Fails, backoff=backoff))
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert gaps == pytest.approx([1, 3, 9, 10, 10])


def test_full_jitter_draws_from_nothing_to_the_upper_end() -> None:
    backoff = Backoff(first_s=2, factor=2, cap_s=100)
    assert backoff.pause_s(3, 0.0) == 8
    assert backoff.pause_s(3, 0.5) == 4
    assert backoff.pause_s(3, 1.0) == 0
    assert backoff.pause_s(10_000, 0.0) == 100


async def test_a_healthy_run_forgets_earlier_failures(autojump_clock: Any) -> None:
    lives = iter([0.0, 0.0, 61.0, 0.0, 0.0, 61.0, 0.0, 0.0, 0.0])
    ran: list[float] = []

    class Fails(Task):
        async def run(self, context: Context) -> None:
            ran.append(next(lives))
            await trio.sleep(ran[-1])
            raise OSError("refused")

    backoff = Backoff(first_s=0.1, jitter=0, healthy_s=60, give_up_after=4)
    with pytest.raises(RestartsExhausted):
        await run_until_it_fails(ChildSpec(name="a", start=Fails, backoff=backoff))
    assert len(ran) == 9


async def test_a_start_that_fails_after_a_restart_counts_as_a_failure(autojump_clock: Any) -> None:
    starts = 0

    class Second(Recorder):
        async def started(self) -> None:
            nonlocal starts
            starts += 1
            if starts in (2, 3):
                raise OSError("port in use")

    diary: list[Any] = []
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="a", start=lambda: Second(diary), backoff=AT_ONCE))
        await ref.tell(Crash())
        await ref.tell(Note("kept"))
        await settle()
        assert starts == 4
        assert "kept" in diary


async def test_giving_up_goes_up_the_tree_and_a_supervisor_is_restarted_with_its_children(
    autojump_clock: Any, recorders: Recorders
) -> None:
    once = Backoff(first_s=0, jitter=0, give_up_after=1)
    branch = Supervisor([recorders.spec("x"), recorders.spec("y", backoff=once)])
    spec = ChildSpec(name="branch", start=lambda: branch, backoff=AT_ONCE)
    async with open_system(root=Supervisor([spec])) as system:
        with system.events.listen() as events:
            first = system.find("branch/y")
            await first.tell(Crash())
            await settle()
            assert first.reason is not None
            assert first.reason.kind == "error"
            second = system.find("branch/y")
            assert second is not first
            await second.tell(Note("again"))
            await settle()
            escalated = [event.path async for event in _until(events, "escalated")]
        assert escalated[-1] == "callboard/branch"
    assert recorders.diary == [
        *("start x", "start y", "stop y", "stop x", "start x", "start y", "again", "stop y", "stop x")
    ]


async def _until(events: Any, kind: str) -> Any:
    async for event in events:
        yield event
        if event.kind == kind:
            return


async def test_a_first_child_that_cannot_start_ends_what_had_started_in_order(
    autojump_clock: Any, recorders: Recorders
) -> None:
    class Refuses(Actor):
        async def started(self) -> None:
            raise OSError("no such port")

    root = Supervisor([recorders.spec("a"), recorders.spec("b"), ChildSpec(name="c", start=Refuses)])
    with pytest.raises(StartFailed, match="no such port"):
        async with open_system(root=root):
            pytest.fail("the block must not run")
    assert recorders.diary == ["start a", "start b", "stop b", "stop a"]


async def test_one_for_one_leaves_the_others_alone(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system(root=Supervisor([recorders.spec(name) for name in "abc"])) as system:
        await system.find("b").tell(Crash())
        await settle()
        assert recorders.diary[3:] == ["stop b", "start b"]


async def test_one_for_all_restarts_all_in_order(autojump_clock: Any, recorders: Recorders) -> None:
    root = Supervisor([recorders.spec(name) for name in "abc"], "one_for_all")
    async with open_system(root=root) as system:
        ref = system.find("a")
        await system.find("b").tell(Crash())
        await settle()
        assert recorders.diary[3:] == ["stop b", "stop c", "stop a", "start a", "start b", "start c"]
        await ref.tell(Note("same ref"))
        await settle()
        assert recorders.diary[-1] == "same ref"


async def test_rest_for_one_restarts_those_that_started_later(autojump_clock: Any, recorders: Recorders) -> None:
    root = Supervisor([recorders.spec(name) for name in "abcd"], "rest_for_one")
    async with open_system(root=root) as system:
        await system.find("b").tell(Crash())
        await settle()
        assert recorders.diary[4:] == ["stop b", "stop d", "stop c", "start b", "start c", "start d"]


async def test_a_temporary_child_is_taken_down_with_its_group_and_not_started_again(
    autojump_clock: Any, recorders: Recorders
) -> None:
    root = Supervisor([recorders.spec("a"), recorders.spec("t", restart="temporary")], "one_for_all")
    async with open_system(root=root) as system:
        await system.find("a").tell(Crash())
        await settle()
        assert recorders.diary[2:] == ["stop a", "stop t", "start a"]
        await system.root.stop_child("a")


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_several_failures_at_once_make_one_round(
    autojump_clock: Any, recorders: Recorders, strategy: Any
) -> None:
    pause = Backoff(first_s=5, jitter=0)
    root = Supervisor([recorders.spec(name, backoff=pause) for name in "abc"], strategy)
    async with open_system(root=root) as system:
        for name in "cab":
            system.find(name).tell_nowait(Crash())
        await trio.sleep(4)
        assert sorted(recorders.diary[3:]) == ["stop a", "stop b", "stop c"]
        await trio.sleep(2)
        assert recorders.diary[6:] == ["start a", "start b", "start c"]


async def test_an_earlier_child_that_fails_during_a_round_widens_it(autojump_clock: Any, recorders: Recorders) -> None:
    pause = Backoff(first_s=5, jitter=0)
    root = Supervisor([recorders.spec(name, backoff=pause) for name in "abc"], "rest_for_one")
    async with open_system(root=root) as system:
        system.find("c").tell_nowait(Crash())
        await trio.sleep(3)
        system.find("a").tell_nowait(Crash())
        await trio.sleep(4)
        assert recorders.diary[3:] == ["stop c", "stop a", "stop b"]
        await trio.sleep(2)
        assert recorders.diary[6:] == ["start a", "start b", "start c"]


async def test_a_group_member_that_hangs_is_cancelled_at_its_deadline(
    autojump_clock: Any, recorders: Recorders
) -> None:
    root = Supervisor([recorders.spec("a"), recorders.spec("b", shutdown_s=3)], "one_for_all")
    async with open_system(root=root) as system:
        await system.find("b").tell(Sleep(100))
        await trio.sleep(1)
        await system.find("a").tell(Crash())
        await trio.sleep(2.9)
        assert recorders.diary[2:] == ["stop a"]
        await trio.sleep(0.2)
        assert recorders.diary[2:] == ["stop a", "stop b", "start a", "start b"]


async def test_a_child_that_fails_to_start_in_a_round_opens_it_again(autojump_clock: Any) -> None:
    diary: list[Any] = []
    tries = 0

    class Late(Recorder):
        async def started(self) -> None:
            nonlocal tries
            tries += 1
            if tries == 2:
                raise OSError("not yet")
            await super().started()

    specs = [ChildSpec(name=name, start=lambda name=name: Recorder(diary, name), backoff=AT_ONCE) for name in "ac"]
    specs.insert(1, ChildSpec(name="b", start=lambda: Late(diary, "b"), backoff=AT_ONCE))
    async with open_system(root=Supervisor(specs, "one_for_all")) as system:
        await system.find("c").tell(Crash())
        await settle()
        down, up = ["stop c", "stop b", "stop a"], ["start a", "start b", "start c"]
        assert diary[3:] == [*down, "start a", "stop b", "stop a", *up]


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.parametrize("how", ["stop", "cancel", "system"])
async def test_a_child_can_be_ended_while_it_waits_to_restart(
    autojump_clock: Any, recorders: Recorders, strategy: Any, how: str
) -> None:
    pause = Backoff(first_s=1000, jitter=0)
    root = Supervisor([recorders.spec(name, backoff=pause) for name in "ab"], strategy)
    async with open_system(root=root) as system:
        ref = system.find("a")
        await ref.tell(Crash())
        await settle()
        began_s = trio.current_time()
        if how == "stop":
            await ref.stop()
        elif how == "cancel":
            ref.cancel()
        else:
            await system.stop()
        assert await ref.monitor() == StopReason("shutdown")
        assert trio.current_time() - began_s < 0.1
        assert recorders.diary.count("start a") == 1


@pytest.mark.parametrize(("auto_stop", "ends_after"), [("any", 1), ("all", 2)])
async def test_significant_children_end_their_supervisor(
    autojump_clock: Any, recorders: Recorders, auto_stop: Any, ends_after: int
) -> None:
    children = [recorders.spec(name, restart="transient", significant=name != "helper") for name in ("one", "two")]
    job = Supervisor([*children, recorders.spec("helper")], auto_stop=auto_stop)
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="job", start=lambda: job, restart="transient"))
        await system.find("job/helper").tell(Note("helped"))
        for at, name in enumerate(("one", "two"), 1):
            await system.find(f"job/{name}").tell(Finish())
            await settle()
            assert (ref.reason == StopReason("normal")) == (at >= ends_after)
            if at == ends_after:
                break
        assert system.find("job") is None
        assert recorders.diary[-1 if ends_after == 2 else -2] == "stop helper"


async def test_stop_is_in_reverse_order_and_dynamic_children_end_first_and_together(
    autojump_clock: Any, recorders: Recorders
) -> None:
    root = Supervisor([recorders.spec("a"), recorders.spec("b", stop_s=1)])
    async with open_system(root=root) as system:
        for name in "xyz":
            await system.spawn(recorders.spec(name, stop_s=2))
        began_s = trio.current_time()
    assert trio.current_time() - began_s == pytest.approx(3)
    assert sorted(recorders.diary[5:8]) == ["stop x", "stop y", "stop z"]
    assert recorders.diary[8:] == ["stop b", "stop a"]


async def test_one_deadline_is_handed_down_the_whole_tree(autojump_clock: Any, recorders: Recorders) -> None:
    def level(depth: int) -> Supervisor:
        specs = [recorders.spec(f"w{depth}", shutdown_s=1000)]
        if depth:
            specs.append(ChildSpec(name="below", start=lambda: level(depth - 1), shutdown_s=1000))
        return Supervisor(specs)

    async with open_system(root=level(3)) as system:
        path = ""
        for depth in (3, 2, 1, 0):
            system.find(f"{path}w{depth}").tell_nowait(Sleep(500))
            path += "below/"
        await trio.sleep(1)
        began_s = trio.current_time()
        await system.stop(7)
        assert trio.current_time() - began_s == pytest.approx(7)
    assert sorted(recorders.diary[4:]) == ["stop w0", "stop w1", "stop w2", "stop w3"]


async def test_a_stop_during_the_start_does_not_wait_for_it(autojump_clock: Any, recorders: Recorders) -> None:
    branch = Supervisor([recorders.spec("a"), recorders.spec("b", start_s=1000)])
    async with open_system() as system, trio.open_nursery() as nursery:

        async def start() -> None:
            await system.spawn(ChildSpec(name="branch", start=lambda: branch, restart="temporary"))

        nursery.start_soon(start)
        await trio.sleep(1)
        began_s = trio.current_time()
        await system.stop()
        assert trio.current_time() - began_s < 1
    assert recorders.diary == ["start a", "stop b", "stop a"]


async def test_a_tree_is_printed_for_people(autojump_clock: Any, recorders: Recorders) -> None:
    branch = Supervisor([recorders.spec("a"), recorders.spec("b")])
    async with open_system("service", Supervisor([ChildSpec(name="jobs", start=lambda: branch)])) as system:
        await system.find("jobs/a").tell(Note("1"))
        await system.find("jobs/b").tell(Crash())
        await trio.sleep(2)
        lines = str(system.tree()).splitlines()
    assert lines[0] == "service  (System, running for 2.0 s)"
    assert lines[1] == "└── jobs  (Supervisor, running for 2.0 s)"
    assert lines[2] == "    ├── a  (Recorder, running for 2.0 s; 1 message)"
    assert lines[3] == "    └── b  (Recorder, running for 2.0 s; 1 restart; last error ValueError: boom)"


async def test_a_task_shows_its_parts_in_the_tree_while_it_runs(autojump_clock: Any) -> None:
    class Crossing(Task):
        async def run(self, context: Any) -> None:
            await trio.sleep(10)

        def parts(self) -> tuple[TreeNode, ...]:
            return (TreeNode(name="steps", kind="Steps", state="running", since_s=3.0, processed=1200, unit="step"),)

    async with open_system("service") as system:
        await system.spawn(ChildSpec(name="crossing", start=Crossing, restart="temporary"))
        await trio.sleep(3)
        lines = str(system.tree()).splitlines()
        assert lines[1:] == [
            "└── crossing  (Crossing, running for 3.0 s)",
            "    └── steps  (Steps, running for 3.0 s; 1,200 steps)",
        ]
        await trio.sleep(8)
        assert "steps" not in str(system.tree())

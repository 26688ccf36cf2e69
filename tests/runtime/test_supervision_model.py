"""Random groups of children and random misfortunes, beside a model that says in a few lines what must run afterwards."""

from __future__ import annotations

from typing import Any

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard.runtime import ActorRef, Backoff, ChildSpec, RestartsExhausted, Supervisor, open_system

from .conftest import Crash, Finish, Note, Recorder

GIVE_UP_AFTER = 3
NAMES = "abcdef"

RESTARTS = st.sampled_from(["permanent", "transient", "temporary"])
STEPS = st.tuples(st.sampled_from(["crash", "finish", "stop", "cancel"]), st.integers(0, 5))


@attrs.define
class Model:
    """Who runs, in which life, and how often each has failed in a row."""

    strategy: str
    restart: dict[str, str]
    life: dict[str, int]
    failures: dict[str, int]
    has_given_up: bool = False

    def step(self, what: str, name: str) -> None:
        if name not in self.life or self.has_given_up:
            return
        kind = self.restart[name]
        if what in ("stop", "cancel") or kind == "temporary" or (what == "finish" and kind == "transient"):
            del self.life[name]
            return
        self.failures[name] += 1
        if self.failures[name] == GIVE_UP_AFTER:
            self.has_given_up = True
            self.life.clear()
            return
        names = list(self.life)
        group = {"one_for_one": [name], "one_for_all": names, "rest_for_one": names[names.index(name) :]}[self.strategy]
        for one in group:
            if one != name and self.restart[one] == "temporary":
                del self.life[one]
            else:
                self.life[one] += 1


@settings(max_examples=300)
@given(
    strategy=st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]),
    restarts=st.lists(RESTARTS, min_size=1, max_size=6),
    steps=st.lists(STEPS, max_size=12),
)
def test_the_live_tree_equals_the_model(strategy: Any, restarts: list[Any], steps: list[tuple[str, int]]) -> None:
    children = dict(zip(NAMES, restarts, strict=False))
    model = Model(strategy, children, dict.fromkeys(children, 0), dict.fromkeys(children, 0))
    diary: list[Any] = []
    backoff = Backoff(first_s=1, give_up_after=GIVE_UP_AFTER, healthy_s=1e9)

    def spec(name: str) -> ChildSpec:
        return ChildSpec(name=name, start=lambda: Recorder(diary, name), restart=children[name], backoff=backoff)

    async def main() -> None:
        async with open_system(root=Supervisor([spec(name) for name in children], strategy)) as system:
            refs = {name: system.find(name) for name in children}
            for what, at in steps:
                name = NAMES[at % len(children)]
                model.step(what, name)
                await strike(refs[name], what)
                await trio.sleep(100)
                assert {node.name: node.restarts for node in system.tree().children} == model.life
                assert all(node.state == "running" for node in system.tree().children)
                assert {name for name, ref in refs.items() if ref.reason is None} == set(model.life)

    try:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        assert not model.has_given_up
    except RestartsExhausted:
        assert model.has_given_up
    for name in children:
        assert diary.count(f"start {name}") == diary.count(f"stop {name}") >= 1


async def strike(ref: ActorRef[Recorder], what: str) -> None:
    if what == "stop":
        await ref.stop()
    elif what == "cancel":
        ref.cancel()
    else:
        await ref.tell(Crash() if what == "crash" else Finish())


MESSAGES = 100_000
ACTORS = 20


async def test_no_message_is_lost_under_many_crashes(autojump_clock: Any) -> None:
    """Told = handled + crashed upon + dead letters, and nothing is left behind."""
    diary: list[Any] = []
    crashed = dead = 0

    def count(event: Any) -> None:
        nonlocal crashed, dead
        crashed += event.kind == "crashed"
        dead += event.kind == "dead_letter"

    tasks_before = trio.lowlevel.current_statistics().tasks_living
    backoff = Backoff(first_s=0.01, healthy_s=0, give_up_after=2)
    async with open_system() as system:
        with system.events.calling(count):
            refs = [
                await system.spawn(ChildSpec(name=str(at), start=lambda: Recorder(diary), backoff=backoff))
                for at in range(ACTORS)
            ]
            note, crash = Note("x"), Crash()
            for number in range(MESSAGES):
                await refs[number % ACTORS].tell(crash if number % 97 == 0 else note)
            for ref in refs[::2]:
                ref.cancel()
            for ref in refs[1::2]:
                await ref.stop()
            for ref in refs:
                # An error if it had crashed just before, and was told to stop while it cleaned up.
                assert (await ref.monitor()).kind != "normal"
    assert sum(ref.processed for ref in refs) + crashed + dead == MESSAGES
    assert crashed > 100
    # Those that were told to end while they waited for a restart have no further life.
    assert crashed <= diary.count("start") == diary.count("stop") <= crashed + ACTORS
    assert trio.lowlevel.current_statistics().tasks_living == tasks_before

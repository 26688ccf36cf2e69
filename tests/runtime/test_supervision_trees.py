"""Random trees of supervisors and random misfortunes, beside a pure model that says what must run afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard.runtime import Backoff, ChildSpec, RestartsExhausted, Supervisor, TreeNode, open_system

from .conftest import Crash, Finish, Recorder

GIVE_UP_AFTER = 3
BACKOFF = Backoff(first_s=1, give_up_after=GIVE_UP_AFTER, healthy_s=1e9)


@attrs.frozen
class Plan:
    """One child as it is described: an actor, or a supervisor if there is a group."""

    restart: Any
    significant: bool
    group: Group | None = None


@attrs.frozen
class Group:
    strategy: Any
    auto_stop: Any
    plans: tuple[Plan, ...]


def groups(plans: st.SearchStrategy[Plan]) -> st.SearchStrategy[Group]:
    return st.builds(
        Group,
        strategy=st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]),
        auto_stop=st.sampled_from([None, "any", "all"]),
        plans=st.lists(plans, min_size=1, max_size=3).map(tuple),
    )


def plans(group: st.SearchStrategy[Group | None]) -> st.SearchStrategy[Plan]:
    restarts = st.sampled_from(["permanent", "transient", "temporary"])
    return st.builds(Plan, restart=restarts, significant=st.booleans(), group=group)


TREES = groups(st.recursive(plans(st.none()), lambda below: plans(groups(below)), max_leaves=8))


@attrs.define(eq=False)
class Node:
    """A child as it is now, in the model."""

    name: str
    plan: Plan
    parent: Node | None
    restarts: int = 0
    failures: int = 0
    children: list[Node] = attrs.field(factory=list)

    def begin(self) -> None:
        """A new life: what was below is forgotten."""
        group = self.plan.group
        self.children = [Node(str(at), plan, self) for at, plan in enumerate(group.plans)] if group else []
        for child in self.children:
            child.begin()

    def tell_to_end(self) -> None:
        if self.parent is not None:
            self.parent.children.remove(self)

    def end_by_itself(self, is_error: bool) -> None:
        """What follows when this life is over and nobody has told it so. Raises `RestartsExhausted` at the very top."""
        parent = self.parent
        if parent is None:
            if is_error:
                raise RestartsExhausted
            return
        group = parent.plan.group
        assert group is not None
        kind = self.plan.restart
        if kind == "temporary" or (kind == "transient" and not is_error):
            parent.children.remove(self)
            left = any(other.plan.significant for other in parent.children)
            is_over = group.auto_stop == "any" or (group.auto_stop == "all" and not left)
            if self.plan.significant and is_over:
                parent.end_by_itself(is_error=False)
            return
        self.failures += 1
        if self.failures == GIVE_UP_AFTER:
            parent.end_by_itself(is_error=True)
            return
        at = parent.children.index(self)
        others = {"one_for_one": [self], "one_for_all": list(parent.children), "rest_for_one": parent.children[at:]}
        for one in others[group.strategy]:
            if one is not self and one.plan.restart == "temporary":
                parent.children.remove(one)
            else:
                one.restarts += 1
                one.begin()

    def below(self, path: str = "") -> Iterator[tuple[str, Node]]:
        for child in self.children:
            yield path + child.name, child
            yield from child.below(f"{path}{child.name}/")


def spec_of(name: str, plan: Plan, diary: list[Any]) -> ChildSpec:
    def start() -> Any:
        return Recorder(diary) if plan.group is None else supervisor_of(plan.group, diary)

    return ChildSpec(
        name=name, start=start, restart=plan.restart, significant=plan.significant, backoff=BACKOFF, shutdown_s=5
    )


def supervisor_of(group: Group, diary: list[Any]) -> Supervisor:
    children = [spec_of(str(at), plan, diary) for at, plan in enumerate(group.plans)]
    return Supervisor(children, group.strategy, group.auto_stop)


def seen(nodes: Any) -> Any:
    return [(node.name, node.restarts, seen(node.children)) for node in nodes]


def states(node: TreeNode) -> set[str]:
    return {node.state}.union(*(states(child) for child in node.children))


@settings(max_examples=400, deadline=None)
@given(
    group=TREES,
    steps=st.lists(st.tuples(st.sampled_from(["crash", "finish", "stop", "cancel"]), st.integers(0, 50)), max_size=12),
)
def test_a_live_tree_equals_the_model(group: Group, steps: list[tuple[str, int]]) -> None:
    diary: list[Any] = []
    model = Node("top", Plan("permanent", False, Group("one_for_one", None, (Plan("permanent", False, group),))), None)
    model.begin()
    model_gave_up = False

    async def main() -> None:
        nonlocal model_gave_up
        async with open_system(root=Supervisor([spec_of("0", Plan("permanent", False, group), diary)])) as system:
            for what, at in steps:
                places = list(model.below())
                wanted = [one for one in places if what in ("stop", "cancel") or one[1].plan.group is None]
                if not wanted:
                    continue
                path, node = wanted[at % len(wanted)]
                ref = system.find(path)
                if what in ("stop", "cancel"):
                    node.tell_to_end()
                else:
                    try:
                        node.end_by_itself(is_error=what == "crash")
                    except RestartsExhausted:
                        model_gave_up = True
                if what == "stop":
                    await ref.stop()
                elif what == "cancel":
                    ref.cancel()
                else:
                    ref.tell_nowait(Crash() if what == "crash" else Finish())
                await trio.sleep(1000)
                assert not model_gave_up, "the system should have given up"
                assert seen(system.tree().children) == seen(model.children)
                assert states(system.tree()) == {"running"}

    try:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        assert not model_gave_up
    except RestartsExhausted:
        assert model_gave_up
    assert diary.count("start") == diary.count("stop")

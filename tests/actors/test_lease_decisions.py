"""Leases as a model: several services, delays, lost answers, crashes and clocks of their own, against a store of documents.

What must hold whatever happens: of two that believe to hold a partition at most one can still save; what is saved counts every
document once; and once the faults stop, every partition is listed to its end by somebody.
"""

from __future__ import annotations

from typing import Any

import attrs
import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from callboard.actors.sync.leases import LOOK_GAP_S_MAX, Lease, Observer, choose, ended, named, released, taken

LEASE_S = 30.0
LENGTH = 4
"""Documents of a partition."""
SERVICES = ("owner", "b", "c")


def head(key: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "closed": False, "counts": {"listed": 0}, **more}


def lease(one: str = "p", seq_no: int = 1, state: Any = "held", **more: Any) -> Lease:
    return Lease(**{"id": one, "key": one, "seq_no": seq_no, "state": state, "epoch": "e", "setup": "s", **more})


# The observer


def test_a_lease_that_is_renewed_is_never_given_up() -> None:
    observer = Observer(LEASE_S)
    for at in range(100):
        assert observer.look([lease(seq_no=at // 20)], float(at)) == set()


def test_a_lease_that_stays_the_same_is_given_up_after_its_length_of_looking() -> None:
    observer = Observer(LEASE_S)
    given_up = [at for at in range(60) if observer.look([lease()], float(at))]
    assert given_up[0] == LEASE_S


def test_an_outage_in_which_nobody_can_look_gives_nothing_up() -> None:
    observer = Observer(LEASE_S)
    assert observer.look([lease()], 0.0) == set()
    assert observer.look([lease()], 3_600.0) == set()
    # The holder has had as long as its lease is, less that one gap, to write again.
    assert observer.look([lease()], 3_600.0 + LEASE_S - LOOK_GAP_S_MAX - 1) == set()


@given(st.lists(st.tuples(st.floats(0.1, 100.0), st.booleans()), max_size=80))
def test_no_lease_is_given_up_that_was_seen_to_change_within_its_length(steps: list[tuple[float, bool]]) -> None:
    observer, now_s, seq_no, changed_s = Observer(LEASE_S), 0.0, 0, 0.0
    observer.look([lease(seq_no=seq_no)], now_s)
    for passed_s, is_renewed in steps:
        now_s += passed_s
        if is_renewed:
            seq_no, changed_s = seq_no + 1, now_s
        if observer.look([lease(seq_no=seq_no)], now_s):
            assert now_s - changed_s >= LEASE_S


# What to take


def test_a_helper_takes_what_is_free_or_given_up_and_makes_the_same_documents() -> None:
    leases = [
        lease("mine", epoch="m"),
        lease("held"),
        lease("lost"),
        lease("owner's", by_owner=True),
        lease("free", state="free", epoch=""),
        lease("other", state="free", epoch="", setup="t"),
    ]
    found = choose(leases, {"lost"}, mine={"m"}, setup="s", is_owner=False)
    assert [one.id for one in found] == ["lost", "free"]
    found = choose(leases, {"lost"}, mine={"m"}, setup="s", is_owner=True)
    assert [one.id for one in found] == ["lost", "owner's", "free", "other"]


def test_naming_again_reopens_what_was_not_read_to_its_end_and_nothing_else() -> None:
    def again(before: dict[str, Any]) -> Any:
        return named(before, data={}, title="", setup="s")["lease"]

    over = ended("listed", why="", containers_failed=0, counts={}, failures=())
    assert again(head("p")) == "free"
    assert again(head("p", closed=True)) == "ended"
    assert again(head("p", lease="held", epoch="e")) == "held"
    assert again({**head("p", closed=True), **over}) == "ended"
    assert again({**head("p"), **over, "containers_failed": 1}) == "free"
    assert again({**head("p"), **over, "outcome": "broken"}) == "free"


# Everything together


@attrs.define(eq=False)
class Holder:
    """What a service believes to hold."""

    epoch: str
    seq_no: int
    at: int
    counts: int
    is_alive: bool = True


@attrs.define(eq=False)
class Service:
    name: str
    observer: Observer = attrs.field(factory=lambda: Observer(LEASE_S))
    holds: dict[str, Holder] = attrs.field(factory=dict)
    seen: list[Lease] = attrs.field(factory=list)
    given_up: set[str] = attrs.field(factory=set)
    ahead_s: float = 0.0


class SharedJob(RuleBasedStateMachine):
    """Partitions of some documents each, listed one by one; `documents[key]` is what the store has."""

    @initialize(count=st.integers(1, 4))
    def begin(self, count: int) -> None:
        self.keys = [f"p{number}" for number in range(count)]
        self.documents = {key: named(head(key, at=0), data={}, title="", setup="s") for key in self.keys}
        self.seq_nos = dict.fromkeys(self.keys, 0)
        self.now_s, self.written, self.epochs = 0.0, count, 0
        self.services = {name: Service(name) for name in SERVICES}
        self.delayed: list[tuple[str, int, dict[str, Any]]] = []
        """Writes that their senders have given up and that may arrive all the same."""
        self.saved: dict[str, list[tuple[int, int]]] = {key: [] for key in self.keys}
        """Per partition: from and to which document each write that was accepted reached."""

    # The store

    def put(self, key: str, guard: int, document: dict[str, Any]) -> int | None:
        if self.seq_nos[key] != guard:
            return None
        before = self.documents[key]["at"]
        if document["at"] != before:
            self.saved[key].append((before, document["at"]))
        self.written += 1
        self.documents[key], self.seq_nos[key] = document, self.written
        return self.written

    # The services

    @rule(name=st.sampled_from(SERVICES))
    def look(self, name: str) -> None:
        service = self.services[name]
        service.seen = [
            Lease(
                key, key, self.seq_nos[key], document["lease"], document["epoch"], document["setup"],
                bool(document["by_owner"]),
            )
            for key, document in self.documents.items()
            if document["lease"] != "ended"
        ]  # fmt: skip
        held = [one for one in service.seen if one.state == "held"]
        service.given_up = service.observer.look(held, self.now_s + service.ahead_s)

    @rule(name=st.sampled_from(SERVICES), is_lost=st.booleans())
    def take(self, name: str, is_lost: bool) -> None:
        """Take the first that may be taken; the answer may be lost, and is looked for."""
        service = self.services[name]
        mine = {holder.epoch for holder in service.holds.values()}
        for wanted in choose(service.seen, service.given_up, mine=mine, setup="s", is_owner=name == "owner"):
            self.epochs += 1
            epoch = f"{name}-{self.epochs}"
            document = taken(
                self.documents[wanted.key], wanted.seq_no, self.seq_nos[wanted.key],
                epoch=epoch, worker=name, setup="s", by_owner=name == "owner",
            )  # fmt: skip
            if document is None:
                continue
            seq_no = self.put(wanted.key, self.seq_nos[wanted.key], document)
            assert seq_no is not None
            if is_lost:
                # Nobody knows that it holds it: it runs out.
                return
            service.holds[wanted.key] = Holder(epoch, seq_no, document["at"], document["counts"]["listed"])
            return

    def _holder(self, name: str) -> tuple[str, Holder] | None:
        return next(iter(self.services[name].holds.items()), None)

    @rule(name=st.sampled_from(SERVICES))
    def list_one(self, name: str) -> None:
        found = self._holder(name)
        if found is not None and found[1].at < LENGTH:
            found[1].at += 1
            found[1].counts += 1

    @rule(
        name=st.sampled_from(SERVICES),
        fate=st.sampled_from(["arrives", "answer lost", "late", "never"]),
        gives_back=st.booleans(),
    )
    def save(self, name: str, fate: str, gives_back: bool) -> None:
        found = self._holder(name)
        if found is None:
            return
        key, holder = found
        service = self.services[name]
        document = {
            **self.documents[key], "at": holder.at, "counts": {"listed": holder.counts}, "epoch": holder.epoch,
            "lease": "held", "worker": name,
        }  # fmt: skip
        if holder.at == LENGTH:
            document |= ended("listed", why="", containers_failed=0, counts=document["counts"], failures=())
            document["closed"] = True
        elif gives_back:
            document |= released()
        if fate == "never":
            return
        if fate == "late":
            self.delayed.append((key, holder.seq_no, document))
            return
        seq_no = self.put(key, holder.seq_no, document)
        if seq_no is None:
            # A conflict: ours still if our own mark is there, lost otherwise.
            if self.documents[key]["epoch"] == holder.epoch:
                holder.seq_no = self.seq_nos[key]
            else:
                del service.holds[key]
        elif fate == "answer lost":
            # The next write meets a conflict and looks.
            return
        elif document["lease"] == "held":
            holder.seq_no = seq_no
        else:
            del service.holds[key]

    @precondition(lambda self: self.delayed)
    @rule()
    def a_late_write_arrives(self) -> None:
        key, guard, document = self.delayed.pop(0)
        self.put(key, guard, document)

    @rule(name=st.sampled_from(SERVICES))
    def crash(self, name: str) -> None:
        self.services[name] = Service(name)

    @rule(seconds=st.floats(0.1, 40.0), name=st.sampled_from(SERVICES), skew_s=st.floats(0.0, 5_000.0))
    def time_passes(self, seconds: float, name: str, skew_s: float) -> None:
        self.now_s += seconds
        # Clocks never agree, and nobody minds.
        self.services[name].ahead_s = max(self.services[name].ahead_s, skew_s)

    # What must hold

    @invariant()
    def at_most_one_can_save(self) -> None:
        for key in getattr(self, "keys", ()):
            able = [
                service.name
                for service in self.services.values()
                if key in service.holds and service.holds[key].seq_no == self.seq_nos[key]
            ]
            assert len(able) <= 1, (key, able)

    @invariant()
    def everything_counts_once(self) -> None:
        for key in getattr(self, "keys", ()):
            document = self.documents[key]
            assert document["counts"]["listed"] == document["at"], document
            # What was accepted joins without a gap and without an overlap.
            reached = 0
            for start, stop in self.saved[key]:
                assert (start, stop > start) == (reached, True), self.saved[key]
                reached = stop
            assert reached == document["at"]

    def teardown(self) -> None:
        """The faults stop: whoever is left ends every partition."""
        if not hasattr(self, "keys"):
            return
        self.delayed.clear()
        for name in ("b", "c"):
            self.crash(name)
        for _ in range(200):
            if all(document["lease"] == "ended" for document in self.documents.values()):
                break
            self.now_s += LOOK_GAP_S_MAX
            self.look("owner")
            self.take("owner", False)
            for _ in range(LENGTH):
                self.list_one("owner")
            self.save("owner", "arrives", False)
        assert [document["at"] for document in self.documents.values()] == [LENGTH] * len(self.keys)
        self.everything_counts_once()


TestSharedJob = SharedJob.TestCase
TestSharedJob.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)

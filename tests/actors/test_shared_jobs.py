"""One job, several services: its partitions are shared by leases, whoever dies in between, and everything counts once."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from callboard.actors.journal.entry import Entry
from callboard.actors.journal.telling import Teller, telling
from callboard.actors.sync import lease_keeping
from callboard.actors.sync.failing import SyncFailed
from callboard.actors.sync.plan import SyncPlan
from callboard.actors.sync.report import SyncReport
from callboard.actors.sync.run import SyncRun
from callboard.actors.sync.settings import DeletionLimits, SyncSettings
from callboard.actors.sync.state import STATE_INDEX
from callboard.node import open_node
from callboard.node.faults import FaultyApp, LoseResponse, Match, Rule, ServerFaultPlan, Status
from callboard.protocol.store import NotFound, Store, Target, open_store
from callboard.runtime import simulated_seams
from callboard.sources.errors import Transient
from callboard.sources.source import Checkpoint, Document, Failure, Features, Listing, Partition, Source

PAGE = 5
SETTINGS = SyncSettings(share_jobs=True, checkpoint_every_s=1.0, lease_s=10.0, deletions=DeletionLimits(share_max=1.0))


class World:
    """What the source holds, and what each service has listed of it."""

    def __init__(self, partitions: int, documents: int, *, page_s: float = 0.2) -> None:
        self.tables = {
            f"p{number:03}": [f"p{number:03}-{at}" for at in range(documents)] for number in range(partitions)
        }
        self.page_s = page_s
        self.faults: dict[str, Any] = {}
        """Partition -> what is yielded, or raised, behind its first page."""
        self.listed: dict[str, list[str]] = {}
        """Service -> ids."""
        self.text = "first"
        self.nameable: int | None = None
        """So many partitions are named, then the source breaks."""

    @property
    def ids(self) -> set[str]:
        return {one for ids in self.tables.values() for one in ids}


class Shared(Source[None]):
    service_type, name = "shared", "Shared"
    features = Features(resumable=True)
    shareable = True
    partition_concurrency = 2

    def __init__(self, world: World, service: str) -> None:
        super().__init__(None)
        self.world, self.service = world, service

    async def ping(self) -> None:
        return None

    async def partitions(self, rules: Any = None) -> AsyncIterator[Partition]:  # type: ignore[override]
        for number, key in enumerate(list(self.world.tables)):
            if number == self.world.nameable:
                raise Transient("The names are gone.")
            yield Partition(key, {"table": key})

    async def documents(self, partition: Partition, checkpoint: Any = None) -> Listing:  # type: ignore[override]
        world, ids = self.world, self.world.tables[partition.data["table"]]
        for at in range(checkpoint or 0, len(ids), PAGE):
            await trio.sleep(world.page_s)
            page = ids[at : at + PAGE]
            world.listed.setdefault(self.service, []).extend(page)
            yield [Document(one, {"text": world.text}, timestamp="2026-01-01T00:00:00Z") for one in page]
            fault = world.faults.get(partition.key)
            if isinstance(fault, Exception):
                raise fault
            if fault is not None:
                yield fault
            yield Checkpoint(at + PAGE)


@attrs.define(eq=False)
class Part:
    """One service's run of the job."""

    run: SyncRun
    scope: trio.CancelScope
    ended: trio.Event
    error: BaseException | None = None

    async def kill(self) -> None:
        """End it as SIGKILL does: nothing is written any more."""

        async def nothing() -> None:
            return None

        self.run._checkpoints.save_at_the_end = nothing  # type: ignore[method-assign]
        await self.stop()

    async def stop(self) -> None:
        self.scope.cancel()
        await self.ended.wait()

    async def report(self) -> SyncReport:
        """Wait for the end."""
        await self.ended.wait()
        if self.error is not None:
            return self.run.report("error", str(self.error))
        return self.run.report("completed")


@attrs.define(eq=False)
class Stage:
    app: Any
    store: Store
    world: World
    nursery: trio.Nursery
    entries: list[Entry] = attrs.field(factory=list)

    async def start(
        self, service: str, *, helps: bool = False, settings: SyncSettings = SETTINGS, **changes: Any
    ) -> Part:
        plan = SyncPlan(
            index="stage", job_id="job", connector_id="one", setup=b"setup", worker=service, is_helped=helps, **changes
        )
        part = Part(SyncRun(self.store, Shared(self.world, service), plan, settings), trio.CancelScope(), trio.Event())
        self.nursery.start_soon(self._run, part)
        return part

    async def _run(self, part: Part) -> None:
        try:
            teller = Teller(worker=part.run._work.plan.worker, listeners=[self.entries.append])
            with part.scope, telling(teller, connector_id="one", job_id="job"):
                await part.run.run()
        except SyncFailed as exc:
            part.error = exc
        finally:
            part.ended.set()

    async def ids(self) -> set[str]:
        return {one async for page in self.store.content.existing("stage") for one in page.ids}

    async def leases(self) -> list[dict[str, Any]]:
        await self.store.content.refresh(STATE_INDEX)
        told = await self.store.client.search(index=STATE_INDEX, query={"term": {"kind": "partition"}}, size=1000)
        return [hit["_source"] for hit in told["hits"]["hits"]]


@asynccontextmanager
async def staged(world: World, faults: ServerFaultPlan | None = None) -> AsyncIterator[Stage]:
    with simulated_seams(7):
        async with open_node(port=None) as node, trio.open_nursery() as nursery:
            app = FaultyApp(node.app, faults or ServerFaultPlan())
            async with open_store(Target(embedded=app)) as store:
                yield Stage(app, store, world, nursery)
                nursery.cancel_scope.cancel()


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    with trio.fail_after(600):
        while True:
            found = await look()
            if found:
                return found
            await trio.sleep(0.05)


def seconds_alone(world: World, services: int) -> float:
    pages = sum(-(-len(ids) // PAGE) for ids in world.tables.values())
    return pages * world.page_s / (Shared.partition_concurrency * services)


def listed_in(world: World, seconds: float) -> int:
    """How many documents one service lists in so much time: what may wait for its answer, and for being noted."""
    return int(Shared.partition_concurrency * PAGE * seconds / world.page_s)


async def test_a_hundred_partitions_are_listed_by_three_services(autojump_clock: Any) -> None:
    world = World(100, 20)
    async with staged(world) as stage:
        owner = await stage.start("a")
        await until(lambda: _exists(stage))
        helpers = [await stage.start(name, helps=True) for name in ("b", "c")]
        report = await owner.report()
        assert (report.status, report.indexed, report.failed) == ("completed", 2000, 0)
        assert await stage.ids() == world.ids
        # Every document was listed once, and each service had its share.
        assert sorted(one for listed in world.listed.values() for one in listed) == sorted(world.ids)
        assert all(len(listed) > 400 for listed in world.listed.values())
        assert report.seconds < 1.2 * seconds_alone(world, 3) + 3
        assert any("were listed by other services" in note for note in report.notes)
        for helper in helpers:
            assert (await helper.report()).status == "completed"


async def _exists(stage: Stage) -> bool:
    try:
        return bool(await stage.leases())
    except NotFound:
        return False


async def test_what_a_killed_helper_had_is_gone_on_with_from_its_last_checkpoint(autojump_clock: Any) -> None:
    world = World(4, 200)
    async with staged(world) as stage:
        owner = await stage.start("a")
        await until(lambda: _exists(stage))
        helper = await stage.start("b", helps=True)
        await until(lambda: _is(len(world.listed.get("b", [])) >= 250))
        await helper.kill()
        had = len(world.listed["b"])
        report = await owner.report()
        assert (report.status, report.indexed) == ("completed", 800)
        assert await stage.ids() == world.ids
        again = sum(map(len, world.listed.values())) - 800
        assert 0 < again < had, "it goes on from a checkpoint, not from the beginning"
        assert again <= listed_in(world, 3.0)


async def _is(so: bool) -> bool:
    return so


async def test_a_stopped_helper_gives_its_partitions_back_at_once(autojump_clock: Any) -> None:
    world = World(4, 100)
    async with staged(world) as stage:
        owner = await stage.start("a", settings=attrs.evolve(SETTINGS, lease_s=10_000))
        await until(lambda: _exists(stage))
        helper = await stage.start("b", helps=True)
        await until(lambda: _is(len(world.listed.get("b", [])) >= 60))
        await helper.stop()
        report = await owner.report()
        assert (report.status, report.indexed) == ("completed", 400)
        assert report.seconds < 60, "what was given back is not waited for"
        # What was settled when it stopped is not listed again.
        assert sum(map(len, world.listed.values())) - 400 <= listed_in(world, 3.0)


async def test_after_the_owner_a_new_one_goes_on_beside_the_helper(autojump_clock: Any) -> None:
    world = World(6, 200)
    async with staged(world) as stage:
        owner = await stage.start("a")
        await until(lambda: _exists(stage))
        await stage.start("b", helps=True)
        await until(lambda: _is(len(world.listed.get("b", [])) >= 200))
        await owner.kill()
        before = sum(map(len, world.listed.values()))
        successor = await stage.start("c", goes_on=True, settings=attrs.evolve(SETTINGS, lease_s=10_000))
        report = await successor.report()
        assert (report.status, report.indexed) == ("completed", 1200)
        assert await stage.ids() == world.ids
        assert sum(map(len, world.listed.values())) - 1200 <= listed_in(world, 3.0) < before
        assert any("goes on from the checkpoints of 6 partitions" in note for note in report.notes)


async def test_a_holder_that_was_given_up_saves_nothing_any_more(autojump_clock: Any) -> None:
    """One helper lists on and never renews its lease: as one does whose way to Elasticsearch is cut for a while."""
    world = World(2, 400)
    async with staged(world) as stage:
        one = attrs.evolve(SETTINGS, partitions_max=1)
        owner = await stage.start("a", settings=one)
        await until(lambda: _exists(stage))
        deaf = await stage.start("b", helps=True, settings=attrs.evolve(one, checkpoint_every_s=10_000.0))
        await until(lambda: _is(len(world.listed.get("b", [])) >= 20))
        heir = await stage.start("c", helps=True, settings=attrs.evolve(one, lease_s=3.0))
        report = await owner.report()
        assert (report.status, report.indexed, report.counters.indexed) == ("completed", 800, 400)
        assert len(world.listed["b"]) == 400
        assert set(world.listed["b"]) == set(world.listed["c"])
        assert ((await deaf.report()).indexed, (await heir.report()).indexed) == (0, 400)
        told = {(entry.kind, entry.worker): entry.happening for entry in stage.entries}
        lost, expired = told["lease_lost", "b"], told["lease_expired", "c"]
        assert ("lease_taken", "a") in told
        assert ("lease_lost", "a") not in told
        part = re.findall("“p00.”", lost.sentence())
        assert part == re.findall("“p00.”", expired.sentence()) != []
        assert await stage.ids() == world.ids


@pytest.mark.parametrize("shares", [True, False])
async def test_a_job_goes_on_where_services_that_share_and_such_that_do_not_follow_each_other(
    autojump_clock: Any, shares: bool
) -> None:
    """`shares` is the second one."""
    world = World(6, 100)
    before, after = (attrs.evolve(SETTINGS, share_jobs=so) for so in (not shares, shares))
    async with staged(world) as stage:
        first = await stage.start("a", settings=before)
        await until(lambda: _is(len(world.listed.get("a", [])) >= 300))
        await first.kill()
        second = await stage.start("b", settings=after, goes_on=True)
        if shares:
            await trio.sleep(0.5)
            await stage.start("c", helps=True)
        report = await second.report()
        assert (report.status, report.indexed) == ("completed", 600)
        assert await stage.ids() == world.ids
        assert sum(map(len, world.listed.values())) - 600 <= listed_in(world, 3.0)
        assert ("c" in world.listed) is shares


async def test_what_cannot_be_named_again_is_neither_waited_for_nor_deleted(autojump_clock: Any) -> None:
    world = World(6, 100)
    async with staged(world) as stage:
        first = await stage.start("a")
        await until(lambda: _is(len(world.listed.get("a", [])) >= 100))
        await first.kill()
        world.nameable = 3
        second = await stage.start("b", goes_on=True)
        report = await second.report()
        assert report.status == "error"
        assert "The names are gone." in str(report.error)
        assert (report.deleted, len(await stage.ids())) == (0, 300)
        # And once it can name them all again, it goes on.
        world.nameable = None
        third = await stage.start("c", goes_on=True)
        assert ((await third.report()).status, await stage.ids()) == ("completed", world.ids)


async def test_what_the_source_does_not_name_any_more_is_gone_with_all_it_held(autojump_clock: Any) -> None:
    world = World(6, 100)
    async with staged(world) as stage:
        assert (await (await stage.start("a")).report()).indexed == 600
        world.text = "second"
        first = await stage.start("b")
        await until(lambda: _is(len(world.listed.get("b", [])) >= 60))
        await first.kill()
        del world.tables["p005"]
        report = await (await stage.start("c", goes_on=True)).report()
        assert (report.status, report.indexed, report.deleted) == ("completed", 500, 100)
        assert await stage.ids() == world.ids


async def test_nobody_helps_without_the_ledger_of_whoever_runs_the_job(autojump_clock: Any) -> None:
    async with staged(World(3, 10)) as stage:
        await stage.store.content.ensure_index("stage")
        report = await (await stage.start("b", helps=True)).report()
        assert (report.status, report.indexed) == ("error", 0)
        assert "no ledger" in str(report.error)


async def test_more_leases_than_one_look_shows(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_keeping, "LEASES_SHOWN", 2)
    world = World(30, 10)
    async with staged(world) as stage:
        wide = attrs.evolve(SETTINGS, partitions_max=8)
        owner = await stage.start("a", settings=wide)
        await until(lambda: _exists(stage))
        await stage.start("b", helps=True, settings=wide)
        report = await owner.report()
        assert (report.status, report.indexed) == ("completed", 300)
        assert set(world.listed) == {"a", "b"}


async def test_leases_that_vanish_never_pass_for_an_end(autojump_clock: Any) -> None:
    world = World(3, 100)
    async with staged(world) as stage:
        owner = await stage.start("a")
        await until(lambda: _is(len(world.listed.get("a", [])) >= 100))
        await stage.store.content.delete_by_query(STATE_INDEX, {"term": {"kind": "partition"}})
        report = await owner.report()
        assert report.status == "error"
        assert report.error is not None
        assert "3 partitions were never listed, among them 'p000'" in report.error
        assert report.deleted == 0


@pytest.mark.parametrize("by_helper", [True, False])
async def test_what_is_gone_is_deleted_once_and_what_was_listed_anywhere_stays(
    autojump_clock: Any, by_helper: bool
) -> None:
    world = World(20, 20)
    async with staged(world) as stage:
        first = await stage.start("a")
        assert (await first.report()).indexed == 400
        del world.tables["p007"]
        world.tables["p003"] = world.tables["p003"][:5]
        world.text = "second"
        world.listed.clear()
        owner = await stage.start("a")
        if by_helper:
            await until(lambda: _exists(stage))
            await stage.start("b", helps=True)
        report = await owner.report()
        assert (report.status, report.deleted, report.indexed) == ("completed", 35, 365)
        assert await stage.ids() == world.ids
        assert ("b" in world.listed) is by_helper
        assert [lease for lease in await stage.leases() if lease["job_id"] == "job"] == []


async def test_an_unusual_number_of_deletions_still_waits(autojump_clock: Any) -> None:
    world = World(20, 20)
    async with staged(world) as stage:
        assert (await (await stage.start("a")).report()).indexed == 400
        for key in list(world.tables)[:10]:
            world.tables[key] = []
        careful = attrs.evolve(SETTINGS, deletions=DeletionLimits())
        owner = await stage.start("a", settings=careful)
        await until(lambda: _exists(stage))
        await stage.start("b", helps=True, settings=careful)
        report = await owner.report()
        assert (report.status, report.deleted, report.held_back_deletions) == ("completed", 0, 200)
        assert len(await stage.ids()) == 400


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Transient("The table is locked."), "The table is locked."),
        (Failure("container", "a folder", "may not be read"), "may not be read"),
    ],
)
async def test_what_breaks_at_a_helper_comes_back_to_the_owner(autojump_clock: Any, fault: Any, words: str) -> None:
    world = World(6, 40)
    async with staged(world) as stage:
        assert (await (await stage.start("a")).report()).indexed == 240
        world.faults = {"p005": fault}
        gone = world.tables["p005"].pop()
        # The owner is busy with its first two for long, so the last one is the helper's.
        owner = await stage.start("a", settings=attrs.evolve(SETTINGS, partitions_max=1))
        await until(lambda: _exists(stage))
        await stage.start("b", helps=True, settings=attrs.evolve(SETTINGS, partitions_max=10))
        report = await owner.report()
        assert report.status == "error"
        assert report.error is not None
        assert words in report.error
        assert report.deleted == 0
        # All that was listed counts, up to where it broke.
        assert owner.run.progress().listed == 5 * 40 + (PAGE if isinstance(fault, Exception) else 39)
        assert gone in await stage.ids()
        assert set(world.tables["p005"][:PAGE]) <= set(world.listed["b"])
        assert report.partitions[0].key == "p005"
        assert report.partitions[0].state == "broken"


async def test_a_failed_document_of_a_helper_is_told_with_its_words(autojump_clock: Any) -> None:
    world = World(4, 20)
    world.faults = {"p003": Failure("item", "p003-99", "The row cannot be read.", "p003-99")}
    async with staged(world) as stage:
        owner = await stage.start("a", settings=attrs.evolve(SETTINGS, partitions_max=1))
        await until(lambda: _exists(stage))
        await stage.start("b", helps=True, settings=attrs.evolve(SETTINGS, partitions_max=10))
        report = await owner.report()
        assert (report.status, report.indexed) == ("completed", 80)
        assert report.failed == 4
        assert report.failures[0].why == "The row cannot be read."
        assert report.failures[0].partition == "p003"


async def test_a_helper_that_would_make_other_documents_takes_nothing(autojump_clock: Any) -> None:
    world = World(6, 20)
    async with staged(world) as stage:
        owner = await stage.start("a")
        await until(lambda: _exists(stage))
        helper = await stage.start("b", helps=True)
        helper.run._work.sharing._leases.setup = "another"  # type: ignore[union-attr]
        assert (await owner.report()).indexed == 120
        assert "b" not in world.listed


async def test_a_partition_named_twice_ends_the_job(autojump_clock: Any) -> None:
    class Stutters(Shared):
        async def partitions(self, rules: Any = None) -> AsyncIterator[Partition]:  # type: ignore[override]
            yield Partition("p000", {"table": "p000"})
            yield Partition("p000", {"table": "p000"})

    world = World(1, 5)
    async with staged(world) as stage:
        plan = SyncPlan(index="stage", job_id="job", connector_id="one", setup=b"setup", worker="a")
        with pytest.raises(SyncFailed, match="twice"):
            await SyncRun(stage.store, Stutters(world, "a"), plan, SETTINGS).run()


STATE_REQUESTS = [Match(path=f"/{STATE_INDEX}/*"), Match(path=f"/{STATE_INDEX}/_bulk"), Match(path="/stage/_bulk")]


@pytest.mark.parametrize("seed", range(12))
async def test_whoever_dies_and_whatever_answer_is_lost_everything_counts_once(autojump_clock: Any, seed: int) -> None:
    chance = random.Random(seed)
    world = World(chance.randint(1, 12), chance.choice([5, 40, 120]), page_s=chance.choice([0.05, 0.2]))
    before = set(world.ids)
    plan = ServerFaultPlan(
        tuple(
            Rule(effect=effect, match=match, chance=0.04)
            for match in STATE_REQUESTS
            for effect in (LoseResponse(), Status(status=503))
        ),
        seed=seed,
    )
    async with staged(world) as stage:
        assert (await (await stage.start("first")).report()).status == "completed"
        gone = set(chance.sample(sorted(before), k=min(7, len(before) // 4)))
        world.tables = {key: [one for one in ids if one not in gone] for key, ids in world.tables.items()}
        world.text = "second"
        stage.app.use(plan)
        owner = await stage.start("owner-0")
        helpers: list[Part] = []
        for number in range(1, 8):
            await trio.sleep(chance.uniform(0.5, 6.0))
            match chance.choice(["help", "help", "kill helper", "stop helper", "kill owner", "stop owner"]):
                case "help":
                    helpers.append(await stage.start(f"helper-{number}", helps=True))
                case "kill helper" if helpers:
                    await helpers.pop().kill()
                case "stop helper" if helpers:
                    await helpers.pop().stop()
                case "kill owner" if not owner.ended.is_set():
                    await owner.kill()
                    owner = await stage.start(f"owner-{number}", goes_on=True)
                case "stop owner" if not owner.ended.is_set():
                    await owner.stop()
                    owner = await stage.start(f"owner-{number}", goes_on=True)
        report = await owner.report()
        assert (report.status, report.error) == ("completed", None)
        assert await stage.ids() == world.ids == before - gone
        # What had been accepted and not yet noted when somebody died is found unchanged, and counts as that.
        assert (report.indexed + report.unchanged, report.failed) == (len(world.ids), 0)
        # A job that dies between its last step and its end begins its counts anew.
        assert report.deleted in (len(gone), 0)
        told = await stage.store.client.search(index="stage", size=0, query={"term": {"text": "first"}})
        assert told["hits"]["total"]["value"] == 0

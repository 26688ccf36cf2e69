"""The plugin for pytest, in a pytest of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

pytest_plugins = ["pytester"]

SIMULATED = """
    import pytest
    from callboard.runtime import Actor, Request, ChildSpec, FaultPlan, handles, monotonic, random
    from callboard.runtime.faults import Crash, Rule
    from callboard.node.pytest_plugin import simulate
    import attrs, trio

    @attrs.frozen
    class Ping(Request[str]):
        pass

    class Echo(Actor):
        @handles
        async def on_ping(self, message: Ping) -> str:
            return "pong"

    SEEN = []

    @simulate(seeds=20)
    async def test_all_seeds(seed, callboard_system, tmp_path):
        ref = await callboard_system.spawn(ChildSpec(name="echo", start=Echo))
        await trio.sleep(3600)
        assert await ref.ask(Ping(), timeout_s=5) == "pong"
        assert tmp_path.exists()
        SEEN.append(seed)

    def test_each_seed_was_lived():
        assert SEEN == list(range(20))

    @simulate(seeds=50)
    async def test_fails_at_seven(seed):
        assert seed != 7

    @simulate(seeds=1, faults=lambda seed: FaultPlan([Rule(effect=Crash())]))
    async def test_faults(callboard_system, callboard_node):
        from callboard.runtime import ActorDied
        ref = await callboard_system.spawn(ChildSpec(name="echo", start=Echo))
        assert callboard_node.app is not None
        with pytest.raises(ActorDied):
            await ref.ask(Ping(), timeout_s=5)
"""
OPTIONS = ("-p", "callboard.node.pytest_plugin", "-p", "no:cacheprovider", "-W", "error")


@pytest.fixture
def run(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> object:
    is_installed = request.config.pluginmanager.has_plugin("callboard")
    options = OPTIONS[2:] if is_installed else OPTIONS
    return lambda *more: pytester.runpytest_subprocess(*options, *more)


def test_a_test_is_lived_through_its_seeds_and_names_the_one_that_fails(pytester: pytest.Pytester, run: object) -> None:
    pytester.makepyfile(SIMULATED)
    result = run()  # type: ignore[operator]
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*This was seed 7. Again: pytest *test_fails_at_seven* --simulate-seed 7"])


def test_one_seed_can_be_asked_for(pytester: pytest.Pytester, run: object) -> None:
    pytester.makepyfile(SIMULATED)
    run("-k", "seven", "--simulate-seed", "8").assert_outcomes(passed=1, deselected=3)  # type: ignore[operator]
    run("-k", "seven", "--simulate-seed", "7").assert_outcomes(failed=1, deselected=3)  # type: ignore[operator]


def test_only_async_tests_can_be_simulated() -> None:
    from callboard.node.pytest_plugin import simulate

    with pytest.raises(TypeError, match="async def"):
        simulate(seeds=1)(lambda: None)  # type: ignore[arg-type, return-value]


def test_loading_the_plugin_loads_nothing_else() -> None:
    code = "import sys, pytest; import callboard.node.pytest_plugin; print([m for m in ('trio', 'httpx', 'elasticsearch', 'hypercorn') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


STRANGER = """
    import attrs, pytest, trio
    from callboard import ChildSpec, FaultPlan, Request, Actor, handles, sync
    from callboard.node.faults import LoseResponse, Match, Rule, ServerFaultPlan, Status
    from callboard.runtime import ActorDied, now, random
    from callboard.runtime.faults import Crash
    from callboard.runtime.faults import Rule as ActorRule
    from callboard.testing import Document, PartScript, Script, ScriptedSource, Target, open_store, simulate

    @attrs.frozen
    class Ping(Request[str]):
        pass

    class Echo(Actor):
        @handles
        async def on_ping(self, message: Ping) -> str:
            return "pong"

    async def synced(server, script=None):
        corpus = {"p": [Document(f"d-{n}", {"n": n}) for n in range(20)]}
        async with open_store(Target(embedded=server), wait_s=None) as store:
            report = await sync(ScriptedSource(corpus, script), store, index="books")
            assert report.status == "completed", report.error
            return (await store.client.count(index="books"))["count"]

    @pytest.mark.trio
    async def test_a_system_under_virtual_time(callboard_system):
        before = now()
        ref = await callboard_system.spawn(ChildSpec(name="echo", start=Echo))
        await trio.sleep(86400)
        assert (now() - before).total_seconds() == pytest.approx(86400)
        assert await ref.ask(Ping(), timeout_s=5) == "pong"
        callboard_system.faults.use(FaultPlan([ActorRule(effect=Crash(), times=1)]))
        with pytest.raises(ActorDied):
            await ref.ask(Ping(), timeout_s=5)

    class TestWithFaults:
        @pytest.fixture
        def callboard_faults(self):
            return FaultPlan([ActorRule(effect=Crash(), times=1)], seed=3)

        @pytest.fixture
        def callboard_server_faults(self):
            bulk = Match(path="*/_bulk")
            return ServerFaultPlan([Rule(effect=Status(status=429), match=bulk, times=3), Rule(effect=LoseResponse(), match=bulk, times=1)])

        @pytest.mark.trio
        async def test_actors_crash(self, callboard_system):
            ref = await callboard_system.spawn(ChildSpec(name="echo", start=Echo))
            with pytest.raises(ActorDied):
                await ref.ask(Ping(), timeout_s=5)

        @pytest.mark.trio
        async def test_the_server_is_busy(self, callboard_server):
            assert await synced(callboard_server, Script(other_parts=PartScript(page_delay_s=60))) == 20
            assert callboard_server.firing.fired == [3, 1]

        @simulate(seeds=3)
        async def test_so_it_is_in_simulations(self, callboard_server):
            assert await synced(callboard_server) == 20
            assert callboard_server.firing.fired == [3, 1]

    @pytest.mark.trio
    async def test_a_node(callboard_node):
        assert await synced(callboard_node.app) == 20

    @simulate(seeds=30)
    async def test_finds_the_mistake(seed, callboard_server):
        found = await synced(callboard_server, Script(other_parts=PartScript(ends_after=19 if random().random() < 0.2 else 20)))
        assert found == 20

    def test_without_trio(callboard_system):
        pass
"""


def test_a_test_file_of_a_stranger_passes_and_fails_as_it_should(pytester: pytest.Pytester, run: Any) -> None:
    pytester.makepyfile(STRANGER)
    result = run()
    result.assert_outcomes(passed=5, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*callboard_system needs a test that runs on Trio: put @simulate() on it*"])
    told = re.search(r"This was seed (\d+)\. Again: pytest '(\S+)' --simulate-seed (\d+)", result.stdout.str())
    assert told is not None
    assert "test_finds_the_mistake" in told[2]
    again = run(told[2], "--simulate-seed", told[3])
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines([f"*This was seed {told[1]}.*"])
    run(told[2], "--simulate-seeds", told[1]).assert_outcomes(passed=1 if told[1] != "0" else 0)

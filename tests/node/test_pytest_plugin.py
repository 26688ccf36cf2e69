"""The plugin for pytest, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys

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

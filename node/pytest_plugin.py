"""A plugin for pytest: `simulate` lives a test through many seeds, and fixtures give any Trio test a system, a node and faults.

pytest loads this wherever Callboard is installed, so nothing is imported before it is asked for.

    from callboard.testing import simulate

    @simulate(seeds=200)
    async def test_my_actor(seed, callboard_system):
        ...

    async def test_my_sync(callboard_server):        # with pytest-trio, under virtual time
        ...

- `callboard_system`: a system of actors, with the plan of the fixture `callboard_faults`
- `callboard_node`: a node in memory
- `callboard_server`: the same node behind server faults; `callboard_server.use(plan)` begins them, an empty plan ends them
- `callboard_faults`, `callboard_server_faults`: the plans; no faults unless a module, class or conftest overrides them
- `seed`: of a simulated test
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..runtime import FaultPlan, System
    from .faults import FaultyApp, ServerFaultPlan
    from .server import Node

SEEDS = 100
_OPENED = ("callboard_system", "callboard_node", "callboard_server")
_INSIDE = ("seed", *_OPENED)
"""What a simulated test gets from inside its simulation, and not from pytest."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("callboard")
    group.addoption("--simulate-seed", type=int, metavar="N", help="Run simulated tests with this seed only.")
    group.addoption("--simulate-seeds", type=int, metavar="COUNT", help="Run simulated tests with so many seeds.")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Put a test that asks for something of Callboard's into a simulation, or say what is missing for that."""
    asked = [name for name in _OPENED if name in getattr(item, "fixturenames", ())]
    if not asked:
        return
    if item.get_closest_marker("trio") is None:
        pytest.fail(
            f"{asked[0]} needs a test that runs on Trio: put @simulate() on it, or install pytest-trio and mark it with "
            "pytest.mark.trio.",
            pytrace=False,
        )
    # pytest-trio takes the clock from the test's own arguments only, but it lets a marker say how to run the test.
    item.add_marker(pytest.mark.trio(run=functools.partial(_run_in_simulation, item)), append=False)


def _run_in_simulation(item: Any, main: Any, *, clock: Any = None, instruments: Any = ()) -> Any:
    """As `trio.run`, with clock, chance, order of tasks, ids and threads from the seed of the test's fault plan."""
    import trio

    from ..runtime import run_simulated
    from ..runtime.seams import simulated_seams

    seed = item.funcargs["callboard_faults"].seed if "callboard_faults" in item.funcargs else 0
    if clock is None and not instruments:
        return run_simulated(main, seed=seed)
    with simulated_seams(seed):
        return trio.run(main, clock=clock, instruments=instruments)


@pytest.fixture
def callboard_faults() -> FaultPlan:
    """The fault plan of `callboard_system`: no faults. Override it in a module, class or conftest."""
    from ..runtime import FaultPlan

    return FaultPlan()


@pytest.fixture
def callboard_server_faults() -> ServerFaultPlan:
    """The fault plan of `callboard_server`: no faults. Override it in a module, class or conftest."""
    from .faults import ServerFaultPlan

    return ServerFaultPlan()


@pytest.fixture
async def callboard_system(callboard_faults: FaultPlan) -> AsyncIterator[System]:
    """A system of actors under virtual time, for a test that runs on pytest-trio. All of it has ended after the test."""
    from ..runtime import open_system

    async with open_system("test", faults=callboard_faults) as system:
        yield system


@pytest.fixture
async def callboard_node(callboard_faults: FaultPlan) -> AsyncIterator[Node]:
    """A node in memory, under virtual time, for a test that runs on pytest-trio."""
    from .server import open_node

    async with open_node(None, port=None) as node:
        yield node


@pytest.fixture
async def callboard_server(callboard_node: Node, callboard_server_faults: ServerFaultPlan) -> FaultyApp:
    """The node behind the faults of a plan, to be given to `Target(embedded=...)`."""
    from .faults import FaultyApp

    return FaultyApp(callboard_node.app, callboard_server_faults)


def simulate(
    *, seeds: int | Iterable[int] = SEEDS, faults: FaultPlan | Callable[[int], FaultPlan] | None = None
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Run an async test once for each seed under `run_simulated`, and stop at the first that fails.

    `seeds`: how many, from 0, or which. `faults`: the plan of `callboard_system`, or what makes one from the seed; the
    fixture `callboard_faults` if None. The failure names its seed; `--simulate-seed N` runs that seed alone. Other fixtures of
    the test are made once for all seeds and cannot be asynchronous. Raises `TypeError` for a test that is not `async def`.
    """

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        if not inspect.iscoroutinefunction(test):
            raise TypeError(f"@simulate is for tests that are `async def`; {test.__name__} is not")
        signature = inspect.signature(test)
        wanted = [name for name in signature.parameters if name in _INSIDE]

        @functools.wraps(test)
        def simulated(*instance: Any, **fixtures: Any) -> None:
            request, plan = fixtures["request"], fixtures["callboard_faults"] if faults is None else faults
            given = {name: value for name, value in fixtures.items() if name in signature.parameters}
            for seed in _seeds(request.config, seeds):
                plans = plan(seed) if callable(plan) else plan, fixtures["callboard_server_faults"]
                _live(functools.partial(test, *instance), request.node.nodeid, seed, plans, wanted, given)

        asked = [one for name, one in signature.parameters.items() if name not in _INSIDE]
        names = {one.name for one in asked}
        added = ["request", "callboard_server_faults", *(["callboard_faults"] if faults is None else [])]
        mine = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in added if name not in names]
        del simulated.__wrapped__
        simulated.__signature__ = inspect.Signature([*asked, *mine])  # type: ignore[attr-defined]
        return simulated

    return decorate


def _seeds(config: pytest.Config, seeds: int | Iterable[int]) -> Iterable[int]:
    one, count = config.getoption("--simulate-seed"), config.getoption("--simulate-seeds")
    if one is not None:
        return (one,)
    if count is not None:
        return range(count)
    return range(seeds) if isinstance(seeds, int) else seeds


def _live(
    test: Any,
    node_id: str,
    seed: int,
    plans: tuple[FaultPlan, ServerFaultPlan],
    wanted: list[str],
    given: dict[str, Any],
) -> None:
    from ..runtime import open_system, run_simulated
    from .faults import FaultyApp
    from .server import open_node

    async def main() -> None:
        inside: dict[str, Any] = {"seed": seed}
        async with AsyncExitStack() as stack:
            if {"callboard_node", "callboard_server"} & set(wanted):
                inside["callboard_node"] = node = await stack.enter_async_context(open_node(None, port=None))
                inside["callboard_server"] = FaultyApp(node.app, plans[1])
            if "callboard_system" in wanted:
                system = open_system("test", faults=plans[0], seed=seed)
                inside["callboard_system"] = await stack.enter_async_context(system)
            await test(**given, **{name: inside[name] for name in wanted})

    try:
        run_simulated(main, seed=seed)
    except BaseException as error:
        error.add_note(f"This was seed {seed}. Again: pytest {node_id!r} --simulate-seed {seed}")
        raise

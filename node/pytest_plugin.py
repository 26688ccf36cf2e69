"""A plugin for pytest: `simulate` lives a test through many seeds, with a system and a node of its own.

pytest loads this wherever Callboard is installed, so nothing is imported before it is asked for.

    from callboard.node.pytest_plugin import simulate

    @simulate(seeds=200)
    async def test_my_actor(seed, callboard_system):
        ...

`callboard_system` (under virtual time), `callboard_node` (in memory) and `seed` are parameters of simulated tests.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..runtime import FaultPlan

SEEDS = 100
_INSIDE = ("seed", "callboard_system", "callboard_node")
"""What a simulated test gets from inside its simulation, and not from pytest."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("callboard")
    group.addoption("--simulate-seed", type=int, metavar="N", help="Run simulated tests with this seed only.")
    group.addoption("--simulate-seeds", type=int, metavar="COUNT", help="Run simulated tests with so many seeds.")


@pytest.fixture
def callboard_faults() -> FaultPlan:
    """The fault plan of `callboard_system`: no faults. Override it in a module, class or conftest."""
    from ..runtime import FaultPlan

    return FaultPlan()


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
        def simulated(**fixtures: Any) -> None:
            request, plan = fixtures["request"], fixtures["callboard_faults"] if faults is None else faults
            given = {name: value for name, value in fixtures.items() if name in signature.parameters}
            for seed in _seeds(request.config, seeds):
                _live(test, request.node.nodeid, seed, plan(seed) if callable(plan) else plan, wanted, given)

        asked = [one for name, one in signature.parameters.items() if name not in _INSIDE]
        names = {one.name for one in asked}
        added = ["request", *(["callboard_faults"] if faults is None else [])]
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


def _live(test: Any, node_id: str, seed: int, plan: FaultPlan, wanted: list[str], given: dict[str, Any]) -> None:
    from ..runtime import open_system, run_simulated
    from .server import open_node

    async def main() -> None:
        inside: dict[str, Any] = {"seed": seed} if "seed" in wanted else {}
        async with AsyncExitStack() as stack:
            if "callboard_node" in wanted:
                inside["callboard_node"] = await stack.enter_async_context(open_node(None, port=None))
            if "callboard_system" in wanted:
                system = open_system("test", faults=plan, seed=seed)
                inside["callboard_system"] = await stack.enter_async_context(system)
            await test(**given, **inside)

    try:
        run_simulated(main, seed=seed)
    except BaseException as error:
        error.add_note(f"This was seed {seed}. Again: pytest {node_id!r} --simulate-seed {seed}")
        raise

"""One file for all that shall go wrong: inside the service, at its Elasticsearch, and on the wire between them.

    seed: 7
    runtime:
      rules:
        - {match: {actor: "job-*"}, times: 1, do: {cancel: {at_checkpoint: 40}}}
    elasticsearch:
      rules:
        - {match: {path: "*/_bulk"}, chance: 0.2, do: {status: {status: 429}}}
    network:
      rules:
        - {from_s: 60, every_s: 300, do: {restart: {down_s: 10}}}

Every section may be left out, and may have a `seed` of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from ...runtime.faults import (
    FaultPlan,
    InvalidPlan,
    NetworkFaultPlan,
    only,
    read_network_plan,
    read_runtime_plan,
    read_seed,
)
from .plan import ServerFaultPlan, read_plan

SECTIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "runtime": read_runtime_plan,
    "elasticsearch": read_plan,
    "network": read_network_plan,
}


@attrs.frozen(kw_only=True)
class FaultPlans:
    """What the sections of one file say; None for those that it does not have."""

    runtime: FaultPlan | None = None
    elasticsearch: ServerFaultPlan | None = None
    network: NetworkFaultPlan | None = None

    def shown(self) -> str:
        """Say in a few words how many rules there are, where, and with which seeds."""
        parts = []
        for name in SECTIONS:
            plan = getattr(self, name)
            if plan is not None:
                count = len(plan.rules)
                parts.append(f"{count} {name} rule{'' if count == 1 else 's'} (seed {plan.seed})")
        return ", ".join(parts)


def read_plans(content: Any, bare: str = "elasticsearch") -> FaultPlans:
    """Read a file of faults from plain data, as YAML gives it. One without sections is the section `bare`.

    Raises `InvalidPlan` naming the section, the rule and the key.
    """
    if not isinstance(content, Mapping) or not content:
        raise InvalidPlan(f"a fault plan is a map with the sections {', '.join(SECTIONS)}")
    if "rules" in content and not SECTIONS.keys() & content.keys():
        return FaultPlans(**{bare: SECTIONS[bare](content)})
    only(content, {*SECTIONS, "seed"}, "the plan")
    if not SECTIONS.keys() & content.keys():
        raise InvalidPlan(f"the plan needs at least one of the sections {', '.join(SECTIONS)}")
    seed = read_seed(content)
    return FaultPlans(**{name: _section(content[name], name, seed) for name in SECTIONS if name in content})


def _section(content: Any, name: str, seed: int) -> Any:
    if not isinstance(content, Mapping):
        raise InvalidPlan(f"the section {name} must be a map with the keys `seed` and `rules`")
    try:
        return SECTIONS[name]({"seed": seed, **content})
    except InvalidPlan as problem:
        raise InvalidPlan(f"{name}: {problem}") from None

"""What rules at actors and rules at connections have in common: an effect, where it fires, and a name.

How their plans are read from plain data, and how rules get names, is the same for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import attrs

from .conditions import Conditions, InvalidPlan
from .reading import only, read_rules, read_seed


@attrs.frozen(kw_only=True)
class PlacedRule(Conditions):
    """One thing that goes wrong at some point. Raises `InvalidPlan` if its effect cannot happen there."""

    effects: ClassVar[Mapping[str, type[Any]]]
    """All effects of this kind of rule, by the names that plans use."""
    effect: Any
    match: Any
    name: str = ""
    """Tells its events and counts apart; the number in its plan if empty."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.point not in self.effect.points:
            raise InvalidPlan(f"{self.effect_name} can happen at {', '.join(self.effect.points)}, not at {self.point}")

    @property
    def effect_name(self) -> str:
        """What plans call its effect."""
        return next(name for name, effect in self.effects.items() if effect is type(self.effect))

    @property
    def point(self) -> str:
        """Where it fires."""
        point: str = self.match.point or self.effect.points[0]
        return point


P = TypeVar("P", bound=PlacedRule)


def named(rules: Sequence[P], first: int = 0) -> tuple[P, ...]:
    """The rules, each with a name: those without one get their number, counted from `first`."""
    return tuple(
        rule if rule.name else attrs.evolve(rule, name=str(number)) for number, rule in enumerate(rules, start=first)
    )


def read_placed_rules(content: Any, rule_class: type[P], match_class: type[Any]) -> tuple[tuple[P, ...], int]:
    """Read the rules and the seed of a plan. Raises `InvalidPlan` naming the rule and the key."""
    if not isinstance(content, Mapping):
        raise InvalidPlan("a fault plan is a map with the keys `seed` and `rules`")
    only(content, {"seed", "rules"}, "the plan")
    return read_rules(content.get("rules"), "rules", rule_class, match_class, rule_class.effects), read_seed(content)

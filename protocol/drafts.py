"""How sync rules come into force: a person edits the draft, a service validates it, and a valid draft becomes active."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import attrs

from .documents import AdvancedSnippet, Connector, Rule, Rules, Validation, ValidationState, default_rule
from .jobs import TransitionRefused


def edit_draft(
    connector: Connector,
    now: datetime,
    *,
    rules: Iterable[Rule] | None = None,
    advanced_snippet: AdvancedSnippet | None = None,
) -> Connector:
    """Replace the rules of the draft, its advanced snippet, or both; what is not given stays. The draft is then unvalidated.

    Rules are sorted and end with the default rule. Refused if neither is given.
    """
    if rules is None and advanced_snippet is None:
        raise TransitionRefused("A draft needs basic rules, advanced rules, or both.")
    draft = connector.rules.draft
    if rules is not None:
        draft = attrs.evolve(draft, rules=with_default_last(rules, now))
    if advanced_snippet is not None:
        draft = attrs.evolve(draft, advanced_snippet=advanced_snippet)
    return _with_draft(connector, draft, Validation(state=ValidationState.EDITED))


def with_default_last(rules: Iterable[Rule], now: datetime) -> tuple[Rule, ...]:
    """Sort rules by their order and put the default rule at their end, as an order after theirs; 0 if it is alone."""
    given = tuple(rules)
    own = sorted((rule for rule in given if not rule.is_default), key=_order)
    present = next((rule for rule in given if rule.is_default), None) or default_rule(now)
    last = max((_order(rule) for rule in own), default=-1)
    return (*own, attrs.evolve(present, order=int(last) + 1))


def needs_validation(connector: Connector) -> bool:
    """Tell whether a person has edited the draft since it was validated, and the features let rules be used at all."""
    enabled = connector.features is not None and connector.features.sync_rules_enabled
    return enabled and connector.rules.draft.validation.state is ValidationState.EDITED


def validated(connector: Connector, validation: Validation) -> Connector:
    """Note the result of a validation on the draft, which becomes active if it is valid.

    Refused unless the draft waits for it: a person who edited meanwhile must not get the old result.
    """
    if connector.rules.draft.validation.state is not ValidationState.EDITED:
        raise TransitionRefused(f"The draft rules of connector {connector.id} do not wait for a validation.")
    noted = _with_draft(connector, connector.rules.draft, validation)
    return activate(noted) if validation.state is ValidationState.VALID else noted


def activate(connector: Connector) -> Connector:
    """Make the draft the active rules. Refused unless it is valid."""
    draft = connector.rules.draft
    if draft.validation.state is not ValidationState.VALID:
        raise TransitionRefused(
            f"The draft rules of connector {connector.id} are {draft.validation.state.value}; "
            "only valid ones can be activated.",
            status=draft.validation.state.value,
            wanted=ValidationState.VALID.value,
        )
    return connector.with_rules(attrs.evolve(connector.rules, active=draft))


def _with_draft(connector: Connector, draft: Rules, validation: Validation) -> Connector:
    draft = attrs.evolve(draft, validation=validation)
    return connector.with_rules(attrs.evolve(connector.rules, draft=draft))


def _order(rule: Rule) -> float:
    order = rule.order
    is_number = isinstance(order, int | float) and not isinstance(order, bool) and abs(order) < 2**53
    return order if is_number else 0

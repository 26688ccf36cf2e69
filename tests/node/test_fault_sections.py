"""One file of faults for the service, its Elasticsearch and the wire between them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml

from callboard.node.faults import FaultPlans, InvalidPlan, LoseResponse, Rule, ServerFaultPlan, read_plans
from callboard.node.faults.plan import EFFECTS as SERVER_EFFECTS
from callboard.runtime.faults import Crash, FaultPlan, NetworkFaultPlan, network
from callboard.runtime.faults import Rule as RuntimeRule
from callboard.runtime.faults.plan import EFFECTS as RUNTIME_EFFECTS


def test_each_section_is_read_and_the_seed_is_for_all_that_have_none() -> None:
    plans = read_plans(
        {
            "seed": 7,
            "runtime": {"rules": [{"do": "crash"}]},
            "elasticsearch": {"seed": 9, "rules": [{"do": "lose_response"}]},
            "network": {"rules": [{"do": "cut"}, {"do": "refuse"}]},
        }
    )
    assert plans == FaultPlans(
        runtime=FaultPlan((RuntimeRule(effect=Crash()),), 7),
        elasticsearch=ServerFaultPlan((Rule(effect=LoseResponse()),), 9),
        network=NetworkFaultPlan((network.Rule(effect=network.Cut()), network.Rule(effect=network.Refuse())), 7),
    )
    assert plans.shown() == "1 runtime rule (seed 7), 1 elasticsearch rule (seed 9), 2 network rules (seed 7)"


def test_a_file_without_sections_is_about_elasticsearch_or_what_is_asked_for() -> None:
    assert read_plans({"seed": 1, "rules": [{"do": "lose_response"}]}) == FaultPlans(
        elasticsearch=ServerFaultPlan((Rule(effect=LoseResponse()),), 1)
    )
    assert read_plans({"rules": [{"do": "crash"}]}, bare="runtime").runtime == FaultPlan((RuntimeRule(effect=Crash()),))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "a map with the sections runtime, elasticsearch, network"),
        ({}, "a map with the sections"),
        ({"seed": 7}, "at least one of the sections"),
        ({"runtme": {"rules": []}}, "unknown key 'runtme'; did you mean 'runtime'?"),
        ({"rules": [], "runtime": {}}, "the plan: unknown key 'rules'"),
        ({"runtime": []}, "the section runtime must be a map"),
        (
            {"runtime": {"rules": [{"do": "crsh"}]}},
            "runtime: rules[0].do: unknown effect 'crsh'; did you mean 'crash'?",
        ),
        ({"network": {"rules": [{"do": "cut", "evry": 3}]}}, "network: rules[0]: unknown key 'evry'"),
        (
            {"elasticsearch": {"rules": [{"do": "refuse"}, {"do": {"status": {"status": 5}}}]}},
            "elasticsearch: rules[1].do",
        ),
        ({"seed": "x", "network": {"rules": [{"do": "cut"}]}}, "seed must be a whole number"),
    ],
)
def test_a_wrong_file_says_which_section_and_rule(content: Any, said: str) -> None:
    with pytest.raises(InvalidPlan) as caught:
        read_plans(content)
    assert said in str(caught.value)


PAGE = Path(__file__).parents[2] / "docs" / "fault-injection.md"


def test_the_plans_in_the_documentation_can_be_read() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        assert read_plans(yaml.safe_load(block)).shown()


@pytest.mark.parametrize("effects", [RUNTIME_EFFECTS, SERVER_EFFECTS, network.EFFECTS])
def test_every_effect_and_each_of_its_settings_is_documented(effects: Mapping[str, type[Any]]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, effect in effects.items():
        assert f"`{name}`" in page
        for field in attrs.fields(effect):
            assert field.metadata.get("python_only") or f"`{field.name}`" in page, f"{name}.{field.name}"

"""A file that describes a deployment: what is read, what is refused, what differs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import click
import pytest

from callboard.cli.deployment import apply_to, difference, exported, read_deployment
from callboard.cli.failures import CommandFailed
from callboard.protocol import connectors as transitions
from callboard.protocol.documents import Connector

SCHEMA: dict[str, Any] = {
    "host": {"value": "", "type": "str", "sensitive": False},
    "password": {"value": "", "type": "str", "sensitive": True},
}


def described(service_type: str, stored: Any) -> dict[str, Any]:
    return {**SCHEMA, **stored}


def blank(connector_id: str = "one") -> Connector:
    return transitions.create(connector_id, datetime(2026, 1, 1, tzinfo=UTC), service_type="library", name=connector_id)


def document(**fields: Any) -> dict[str, Any]:
    return {"connectors": [{"id": "one", "service_type": "library", **fields}]}


def applied(connector: Connector, **fields: Any) -> Connector:
    (wanted,) = read_deployment(document(**fields), {"SECRET": "hunter22"})
    return apply_to(wanted, connector, described)


def test_what_the_file_does_not_mention_stays() -> None:
    before = attrs.evolve(blank(), description="kept", index_name="books")
    after = applied(before, name="Library")
    assert (after.name, after.description, after.index_name) == ("Library", "kept", "books")


def test_applying_twice_changes_nothing_the_second_time() -> None:
    fields = {"index_name": "books", "configuration": {"host": "h"}, "scheduling": {"full": {"enabled": True}}}
    once = applied(blank(), **fields)
    assert applied(once, **fields) == once
    assert difference(once, applied(once, **fields), frozenset()) == ()


def test_an_export_applied_elsewhere_gives_the_same_connector_without_its_secrets() -> None:
    before = applied(blank(), index_name="books", configuration={"host": "h", "password": "${SECRET}"})
    (wanted,) = read_deployment(exported([before]), {})
    after = apply_to(wanted, blank(), described)
    assert "hunter22" not in str(exported([before]))
    assert after.configuration["host"]["value"] == "h"
    assert after.configuration["password"]["value"] == ""
    assert (after.index_name, after.scheduling) == (before.index_name, before.scheduling)


def test_a_secret_comes_from_the_environment_and_is_never_shown() -> None:
    after = applied(blank(), configuration={"password": "${SECRET}"})
    assert after.configuration["password"]["value"] == "hunter22"
    lines = difference(blank(), after, frozenset({"password"}))
    assert "configuration.password: nothing -> ***" in lines
    assert "hunter22" not in "".join(lines)


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(CommandFailed, match="password needs the environment variable NOWHERE"):
        read_deployment(document(configuration={"password": "${NOWHERE}"}), {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "a list named connectors"),
        ({"connectors": {}}, "a list named connectors"),
        ({"connectors": [], "version": 1}, "'version' is unknown"),
        ({"connectors": ["x"]}, "connector 1 must be an object"),
        ({"connectors": [{"id": "a"}]}, "connector 1 has no service_type"),
        (document(indexname="x"), "unknown key 'indexname'"),
        (document(name=7), "name must be text"),
        (document(is_native="yes"), "is_native must be true or false"),
        (document(configuration=[]), "configuration must be an object"),
        (document(scheduling={"daily": {}}), "scheduling has the unknown key 'daily'"),
        (document(scheduling={"full": {"cron": "x"}}), "enabled and interval"),
        ({"connectors": document()["connectors"] * 2}, "stands in it twice"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_the_place(text: Any, words: str) -> None:
    with pytest.raises(CommandFailed, match=words):
        read_deployment(text, {})


def test_a_field_the_source_does_not_have_is_refused() -> None:
    with pytest.raises(click.UsageError, match="no field 'hots'"):
        applied(blank(), configuration={"hots": "h"})


def test_the_kind_of_source_cannot_be_changed() -> None:
    other = attrs.evolve(blank(), service_type="archive")
    with pytest.raises(CommandFailed, match="cannot become 'library'"):
        applied(other, name="x")

"""Reading `config.yml`: what existing deployments write must work, and what is wrong must be said so that it can be mended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.configuration import (
    ConfigurationProblem,
    ConnectorSettings,
    Settings,
    masked,
    options,
    read_file,
    read_mapping,
    reloaded,
)


def read(content: dict[str, Any], **environment: str) -> Settings:
    return read_mapping(content, environment).settings


def complaints(content: dict[str, Any], **environment: str) -> dict[str, str]:
    with pytest.raises(ConfigurationProblem) as caught:
        read_mapping(content, environment)
    return {complaint.key: complaint.text for complaint in caught.value.complaints}


def warnings(content: dict[str, Any]) -> dict[str, str]:
    return {complaint.key: complaint.text for complaint in read_mapping(content, {}).warnings}


def test_an_empty_file_means_the_defaults() -> None:
    assert read({}) == Settings()


def test_nested_and_dotted_keys_are_the_same_and_mix() -> None:
    settings = read(
        {"elasticsearch.host": "http://a:1", "elasticsearch": {"bulk.chunk_size": 10, "bulk": {"max_concurrency": 2}}}
    )
    assert settings.elasticsearch.host == "http://a:1"
    assert (settings.elasticsearch.bulk.chunk_size, settings.elasticsearch.bulk.max_concurrency) == (10, 2)


def test_later_entries_win() -> None:
    assert read({"service": {"idling": 5}, "service.idling": 7}).service.idling == 7


@pytest.mark.parametrize(
    ("written", "environment", "meant"),
    [
        ("${HOST}", {"HOST": "http://b"}, "http://b"),
        ("$HOST", {"HOST": "http://b"}, "http://b"),
        ("${HOST|http://c}", {}, "http://c"),
        ("$HOST|http://c", {}, "http://c"),
        ("http://a$$b", {}, "http://a$b"),
        ("http://${A}-${B|x}", {"A": "1"}, "http://1-x"),
    ],
)
def test_variables_are_filled_from_the_environment(written: str, environment: dict[str, str], meant: str) -> None:
    assert read({"elasticsearch": {"host": written}}, **environment).elasticsearch.host == meant


def test_an_undefined_variable_is_named_with_its_key() -> None:
    problem = complaints({"elasticsearch": {"password": "${SECRET}"}})
    assert "SECRET, which is not set" in problem["elasticsearch.password"]


def test_a_dotted_environment_variable_fills_only_what_the_file_leaves_out() -> None:
    environment = {"service.idling": "2.5", "elasticsearch.bulk.chunk_size": "7", "service.fips_mode": "false"}
    settings = read_mapping({"service": {"idling": 9}}, environment).settings
    assert settings.service.idling == 9
    assert settings.elasticsearch.bulk.chunk_size == 7
    assert settings.service.fips_mode is False


@pytest.mark.parametrize(
    ("content", "key", "part"),
    [
        ({"service": {"idling": "soon"}}, "service.idling", "must be a number, not 'soon'"),
        ({"service": {"idling": 0}}, "service.idling", "at least 0.1 seconds"),
        ({"service": {"idling": float("nan")}}, "service.idling", "must be a number"),
        ({"elasticsearch.bulk.chunk_size": 2.5}, "elasticsearch.bulk.chunk_size", "whole number"),
        (
            {"elasticsearch.bulk.max_text_document_size": -1},
            "elasticsearch.bulk.max_text_document_size",
            "at least 0 MiB",
        ),
        ({"service.log_level": "LOUD"}, "service.log_level", "one of DEBUG, INFO"),
        ({"service": 3}, "service", "must hold keys and values, not a number"),
        ({"connectors": {"a": 1}}, "connectors", "must be a list"),
        ({"connectors": ["a"]}, "connectors[0]", "must hold keys and values, not a text"),
        ({"elasticsearch.verify_certs": "maybe"}, "elasticsearch.verify_certs", "true or false"),
        ({"elasticsearch.host": "localhost:9200"}, "elasticsearch.host", "must be a URL"),
        ({"service.worker_mode": True}, "service.worker_mode", "service_types"),
        ({"sources": {"mine": "module.Class"}}, "sources.mine", "package.module:ClassName"),
        ({"callboard.operations": {"enabled": True, "host": "0.0.0.0"}}, "callboard.operations.host", "token"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_should_be(content: dict[str, Any], key: str, part: str) -> None:
    assert part in complaints(content)[key]


def test_all_problems_are_reported_at_once() -> None:
    assert len(complaints({"service.idling": "x", "service.heartbeat": "y", "elasticsearch.ssl": "z"})) == 3


def test_a_wrong_secret_is_not_repeated() -> None:
    assert "hunter2" not in str(complaints({"elasticsearch": {"password": ["hunter2"]}}))


def test_an_unknown_key_is_warned_about_with_the_nearest_known_one() -> None:
    assert "`idling`" in warnings({"service": {"idlng": 5}})["service.idlng"]
    assert "not a known key" in warnings({"nonsense": 5})["nonsense"]


def test_a_key_without_effect_says_why() -> None:
    assert warnings({}) == {}
    assert (
        "source wait"
        in warnings({"elasticsearch.bulk.queue_refresh_timeout": 5})["elasticsearch.bulk.queue_refresh_timeout"]
    )


def test_connectors_are_unique_and_have_text_ids() -> None:
    result = read_mapping(
        {"connectors": [{"connector_id": 1}, {"service_type": "dir"}, {"connector_id": "1", "service_type": "s3"}]}, {}
    )
    assert result.settings.connectors == (ConnectorSettings(connector_id="1", service_type="s3"),)
    assert len(result.warnings) == 2


def test_the_deprecated_single_form_still_works() -> None:
    assert read({"connector_id": "a", "service_type": "dir"}).connectors == (
        ConnectorSettings(connector_id="a", service_type="dir"),
    )
    assert read({"connector_id": "a", "connectors": [{"connector_id": "b"}]}).connectors[0].connector_id == "b"


def test_service_types_may_be_a_list_or_comma_text() -> None:
    assert read({"service": {"worker_mode": True, "service_types": "a, b"}}).service.service_types == ("a", "b")
    assert read({"service": {"worker_mode": True, "service_types": ["a"]}}).service.service_types == ("a",)


def test_secrets_are_masked_and_not_in_repr() -> None:
    settings = read(
        {
            "elasticsearch": {"password": "canary-1", "headers": {"X-Key": "canary-2"}},
            "connectors": [{"connector_id": "c", "api_key": "canary-3"}],
        }
    )
    for shown in (str(masked(settings)), repr(settings)):
        assert "canary" not in shown
    assert masked(settings)["elasticsearch"]["password"] == "********"
    assert masked(settings)["connectors"][0]["connector_id"] == "c"


def test_a_reload_takes_what_may_change_and_names_what_may_not() -> None:
    running = Settings()
    wanted = read({"service.idling": 1, "elasticsearch.host": "http://other", "callboard.sync.memory_mib": 9})
    merged, refused = reloaded(running, wanted)
    assert merged.service.idling == 1
    assert merged.elasticsearch.host == running.elasticsearch.host
    assert set(refused) == {"elasticsearch.host", "callboard.sync.memory_mib"}


def test_every_key_has_a_meaning() -> None:
    listed = list(options())
    assert len(listed) > 60
    for key, _, option in listed:
        assert option.meaning.endswith("."), key


@pytest.mark.parametrize(
    ("text", "part"),
    [("a: [", "line 1"), ("- a", "not a list"), ("\x00", "not YAML")],
)
def test_a_file_that_is_no_configuration_says_where(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text(text)
    with pytest.raises(ConfigurationProblem, match=part):
        read_file(file, {})


def test_a_missing_file_and_bytes_that_are_no_text_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match="does not exist"):
        read_file(tmp_path / "none.yml", {})
    (tmp_path / "bad.yml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ConfigurationProblem, match="not UTF-8"):
        read_file(tmp_path / "bad.yml", {})


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    [key for key, _, _ in options()]
    + ["elasticsearch", "service", "connectors", "callboard", "sources", "connector_id"]
)


@given(st.dictionaries(keys, plain, max_size=5))
def test_anything_is_either_settings_or_a_problem_with_keys(content: dict[str, Any]) -> None:
    try:
        settings = read_mapping(content, {}).settings
    except ConfigurationProblem as problem:
        assert problem.complaints
    else:
        assert attrs.has(type(settings))

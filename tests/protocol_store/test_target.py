"""An address is either usable or refused in one line, and secrets never show."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol.store.errors import InvalidTarget
from callboard.protocol.store.target import Target, shown_url


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "prefix"),
    [
        ("http://localhost", "http", "localhost", 80, ""),
        ("http://localhost:9200", "http", "localhost", 9200, ""),
        ("https://example.org", "https", "example.org", 443, ""),
        ("https://example.org/es/", "https", "example.org", 443, "/es"),
        ("http://[::1]:9200", "http", "::1", 9200, ""),
    ],
)
def test_addresses(url: str, scheme: str, host: str, port: int, prefix: str) -> None:
    config = Target(url).node_config("1")
    assert (config.scheme, config.host, config.port, config.path_prefix) == (scheme, host, port, prefix)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:9200",
        "ftp://localhost",
        "http://",
        "http://host:port",
        "http://host:99999",
        "http://a b",
        "http://h/?x=1",
    ],
)
def test_what_is_no_address_is_said_so(url: str) -> None:
    with pytest.raises(InvalidTarget, match=r"http://localhost:9200|query"):
        Target(url)


@pytest.mark.parametrize(
    "given_credentials",
    [
        {"api_key": ""},
        {"api_key": "two\nlines"},
        {"api_key": "schlüssel"},
        {"username": "ada"},
        {"password": "hunter2"},
        {"username": "ada", "password": "a\rb"},
    ],
)
def test_impossible_credentials_are_refused(given_credentials: dict[str, str]) -> None:
    with pytest.raises(InvalidTarget) as caught:
        Target("http://localhost", **given_credentials)  # type: ignore[arg-type]
    for secret in ("hunter2", "schlüssel", "lines"):
        assert secret not in str(caught.value)


def test_there_is_exactly_one_place_to_speak_to() -> None:
    for arguments in ({}, {"url": "http://localhost", "embedded": object()}):
        with pytest.raises(InvalidTarget, match="either"):
            Target(**arguments)  # type: ignore[arg-type]


def test_every_request_carries_origin_agent_and_credentials() -> None:
    headers = (
        Target("http://ada:love%3Alace@localhost", role="service", headers={"X-Extra": "1"}).node_config("7.7").headers
    )
    assert headers["x-elastic-product-origin"] == "connectors"
    assert headers["user-agent"] == "callboard-7.7/service"
    assert headers["x-extra"] == "1"
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"ada:love:lace"


def test_keys_go_encoded_whichever_way_they_are_written() -> None:
    for key in ("id:secret", base64.b64encode(b"id:secret").decode()):
        headers = Target("http://localhost", api_key=key).node_config("1").headers
        assert headers["authorization"] == "ApiKey " + base64.b64encode(b"id:secret").decode()


def test_an_api_key_beats_user_and_password() -> None:
    target = Target("http://localhost", api_key="abcd", username="elastic", password="changeme")
    assert target.node_config("1").headers["authorization"] == "ApiKey abcd"


def test_a_certificate_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("not a certificate")
    for path in (broken, tmp_path / "absent.pem"):
        with pytest.raises(InvalidTarget, match=str(path)):
            Target("https://localhost", ca_certs=path).node_config("1")


def test_secrets_never_show() -> None:
    target = Target(
        "http://ada:lovelace@localhost:9200/x", api_key="ident:topsecret", headers={"x-token": "tokentoken"}
    )
    for text in (repr(target), str(target), target.shown, repr(target.node_config("1"))):
        for secret in ("lovelace", "topsecret", "tokentoken", *target.secrets()):
            assert secret not in text or (secret == "tokentoken" and "NodeConfig" in text)


@given(st.text(max_size=30), st.text(alphabet=st.characters(exclude_characters="@"), min_size=4, max_size=12))
def test_any_text_is_a_target_or_refused_in_one_line(text: str, password: str) -> None:
    for url in (text, f"http://user:{password}@host{text}"):
        try:
            target = Target(url)
            config = target.node_config("1")
        except InvalidTarget as exc:
            assert "\n" not in str(exc)
        else:
            assert config.host


@given(st.text(alphabet="abc/?#:%é0", min_size=6, max_size=12))
def test_a_shown_url_never_holds_the_password(password: str) -> None:
    assert f":{password}@" not in shown_url(f"http://user:{password}@host:9200/path")
    assert "@" not in shown_url(f"http://user:{password}@host:9200/path")

"""Profiles keep credentials where only their owner can read them."""

from __future__ import annotations

import stat
from pathlib import Path

import click
import pytest

from callboard.cli.destination import Destination
from callboard.cli.exits import Exit
from callboard.cli.failures import CommandFailed
from callboard.cli.main import callboard as root
from callboard.cli.profiles import Profile, load_profile, profile_path, read_profile_file, save_profile

PROFILE = Profile(host="https://search.example.org:9200", api_key="c2VjcmV0")
NOTHING: dict[str, None] = {"url": None, "embedded": None, "api_key_file": None, "user": None, "ca_certs": None}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("CALLBOARD_URL", "CALLBOARD_API_KEY", "CALLBOARD_USERNAME", "CALLBOARD_PASSWORD", "CALLBOARD_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def chosen(profile: str | None = None, **options: object) -> Destination:
    with click.Context(root):
        return Destination.chosen(**(NOTHING | {"insecure": False} | options), profile=profile)  # type: ignore[arg-type]


def test_a_profile_comes_back_as_it_was_saved() -> None:
    save_profile(profile_path("default"), PROFILE)
    assert load_profile("default") == PROFILE


def test_only_the_owner_can_read_a_profile() -> None:
    path = profile_path("default")
    save_profile(path, PROFILE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["default.yml"]


def test_a_profile_never_shows_its_secrets() -> None:
    assert "c2VjcmV0" not in repr(PROFILE)
    assert "c2VjcmV0" not in repr(Destination.of_profile(PROFILE))


def test_the_profile_is_used_when_no_server_is_named() -> None:
    save_profile(profile_path("default"), PROFILE)
    assert (chosen().url, chosen().api_key) == ("https://search.example.org:9200", "c2VjcmV0")


def test_credentials_of_a_profile_never_go_to_a_server_named_otherwise() -> None:
    save_profile(profile_path("default"), PROFILE)
    assert chosen(url="http://elsewhere:9200").api_key is None


def test_a_profile_that_does_not_exist_names_those_that_do() -> None:
    save_profile(profile_path("staging"), PROFILE)
    with pytest.raises(CommandFailed, match="There are: staging") as failed:
        chosen(profile="production")
    assert failed.value.code is Exit.NOT_FOUND


@pytest.mark.parametrize("name", ["../evil", "", "a/b", ".hidden"])
def test_a_profile_cannot_leave_its_folder(name: str) -> None:
    with pytest.raises(CommandFailed, match="cannot be the name of a profile"):
        profile_path(name)


@pytest.mark.parametrize("text", ["elasticsearch: {host: [", "password: hunter22", "- 1", "elasticsearch: {host: 7}"])
def test_a_broken_file_is_named_and_not_quoted(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yml"
    path.write_text(text)
    with pytest.raises(CommandFailed) as failed:
        read_profile_file(path)
    assert str(path) in failed.value.message
    assert "hunter22" not in failed.value.message


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:9200", "not a URL"),
        ("http://", "not a URL"),
        ("http://a:b:c", "not a URL"),
        ("ftp://h", "not a URL"),
        ("http://me:secret@h:9200", "Leave user and password out"),
    ],
)
def test_an_impossible_url_is_refused(url: str, words: str) -> None:
    with pytest.raises(click.UsageError, match=words):
        chosen(url=url)


def test_contradicting_options_are_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("abc\n")
    with pytest.raises(click.UsageError, match="not both"):
        chosen(url="http://h", api_key_file=key, user="ines")
    with pytest.raises(click.UsageError, match="without a server"):
        chosen(embedded=tmp_path, url="http://h")


def test_an_api_key_is_read_from_the_first_line_of_its_file(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("abc==\n\n")
    assert chosen(url="http://h", api_key_file=key).api_key == "abc=="
    key.write_text("\n")
    with pytest.raises(CommandFailed, match="is empty"):
        chosen(url="http://h", api_key_file=key)

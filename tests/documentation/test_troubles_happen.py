"""Some of the troubles, brought about: what people then see is what the page quotes."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from callboard.node import User, open_node

PAGES = Path(__file__).parents[2] / "docs" / "troubleshooting"


@attrs.frozen
class Seen:
    """What a command has said."""

    code: int
    text: str

    def is_quoted_by(self, page: str, words: str) -> None:
        """The words were said, and the page quotes them."""
        assert words in self.text
        quoted = "\n".join((PAGES / f"{page}.md").read_text(encoding="utf-8").split("```text\n")[1:])
        assert words in quoted, f"{page}.md does not quote: {words}"


@attrs.frozen
class Shell:
    """A person at a terminal, in a folder of their own."""

    home: Path

    async def __call__(self, *words: str, **environment: str) -> Seen:
        clean = {"PATH": os.environ["PATH"], "HOME": str(self.home), **environment}
        done = await trio.run_process(
            [sys.executable, "-m", "callboard", *words],
            cwd=self.home, env=clean, capture_stdout=True, capture_stderr=True, check=False,
        )  # fmt: skip
        return Seen(done.returncode, (done.stderr + done.stdout).decode())


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@asynccontextmanager
async def something_else() -> AsyncIterator[str]:
    """A program that is no Elasticsearch listens here."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_nobody_answers(shell: Shell) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    seen = await shell("index", "list", "--to", f"http://127.0.0.1:{port}")
    assert seen.code == 3
    seen.is_quoted_by("cannot-connect", "refuses connections. Is Elasticsearch running there?")


async def test_something_else_answers(shell: Shell) -> None:
    async with something_else() as url:
        seen = await shell("index", "list", "--to", url)
    assert seen.code == 3
    seen.is_quoted_by("cannot-connect", "answers, but not like Elasticsearch. Look at address, port and scheme.")


async def test_the_scheme_is_wrong(shell: Shell) -> None:
    async with open_node() as node:
        seen = await shell("index", "list", "--to", str(node.url).replace("http:", "https:"))
    assert seen.code == 3
    seen.is_quoted_by("certificate", "does not speak TLS on this port. Is it http:// there?")


async def test_the_password_is_wrong(shell: Shell) -> None:
    async with open_node(users=[User("ines", "right", ("superuser",))]) as node:
        seen = await shell("index", "list", "--to", str(node.url), "--user", "ines", CALLBOARD_PASSWORD="wrong")
    assert seen.code == 4
    seen.is_quoted_by("credentials-refused", "does not accept the credentials. Look at API key, user and password.")
    seen.is_quoted_by("credentials-refused", "Give credentials with --user or --api-key-file.")


async def test_a_privilege_is_missing_and_what_is_told_suffices(shell: Shell) -> None:
    async with (
        open_node(users=[User("ines", "right", ("superuser",))]) as node,
        httpx.AsyncClient(base_url=str(node.url), auth=("ines", "right")) as client,
    ):

        async def key(*roles: dict[str, Any]) -> str:
            made = {"name": "service", "role_descriptors": {f"role {at}": role for at, role in enumerate(roles)}}
            return str((await client.post("/_security/api_key", json=made)).json()["encoded"])

        small = await key({"cluster": ["monitor"], "indices": []})
        seen = await shell("doctor", "--to", str(node.url), CALLBOARD_API_KEY=small)
        assert seen.code == 1
        seen.is_quoted_by("privilege-missing", "missing: cluster privilege manage_connector")
        told = re.search(r"PUT _security/role/callboard (\{.*\}), and", seen.text)
        assert told is not None
        seen.is_quoted_by("privilege-missing", told[0])
        refused = await shell("connector", "list", "--to", str(node.url), CALLBOARD_API_KEY=small)
        assert refused.code == 4
        refused.is_quoted_by("privilege-missing", "These credentials may not do POST /")
        content = {"indices": [{"names": ["*notes"], "privileges": ["read", "write", "create_index", "manage"]}]}
        enough = await key(json.loads(told[1]), content)
        (shell.home / "storm.txt").write_text("Wind machine")
        words = ("sync", "dir", "--set", f"directory={shell.home}", "--index", "notes", "--to", str(node.url))
        assert (await shell(*words, CALLBOARD_API_KEY=enough)).code == 0
        for words in (("doctor",), ("connector", "list"), ("job", "list")):
            assert (await shell(*words, "--to", str(node.url), CALLBOARD_API_KEY=enough)).code == 0


async def test_the_version_is_another(shell: Shell) -> None:
    async with open_node(version="8.17.0") as node:
        (shell.home / "config.yml").write_text(f"elasticsearch.host: {node.url}\nconnectors: [{{connector_id: one}}]\n")
        seen = await shell("service", "-c", "config.yml")
    assert seen.code == 1
    for page in ("version-mismatch", "service-restarts"):
        seen.is_quoted_by(page, "Elasticsearch is 8.17.0, and Callboard speaks the connector protocol of")
        seen.is_quoted_by(page, "so they do not understand each other. Upgrade Elasticsearch.")


async def test_the_licence_is_basic(shell: Shell) -> None:
    async with open_node(license_type="basic") as node:
        seen = await shell("doctor", "--to", str(node.url))
    seen.is_quoted_by("no-licence", "basic. Content is synced; access-control syncs need platinum or better.")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("service.idling: soon", "service.idling: must be a number, not 'soon'."),
        ("elasticsearch.hots: x", "elasticsearch.hots: is not a known key"),
        ("elasticsearch.password: ${DB_PASSWORD}", "uses the environment variable DB_PASSWORD, which is not set"),
        (
            "callboard.operations: {enabled: true, host: 0.0.0.0}",
            "callboard.operations.host: is not loopback, so `callboard.operations.token` must be set",
        ),
    ],
    ids=["no number", "unknown key", "no variable", "no token"],
)
async def test_the_configuration_is_wrong(shell: Shell, content: str, words: str) -> None:
    (shell.home / "config.yml").write_text(content + "\n")
    seen = await shell("config", "check", "-c", "config.yml", "--strict")
    assert seen.code != 0
    seen.is_quoted_by("configuration-refused", words)


async def test_the_service_type_is_unknown(shell: Shell) -> None:
    seen = await shell("sync", "sharepoint", "--index", "papers", "--embedded", "data")
    seen.is_quoted_by("missing-driver", "There is no source 'sharepoint'. There are: ")


async def test_the_folder_is_gone(shell: Shell) -> None:
    seen = await shell("sync", "dir", "--set", "directory=/srv/notes", "--index", "notes", "--embedded", "data")
    assert seen.code == 5
    seen.is_quoted_by("source-unreachable", "/srv/notes does not exist. Check the path, and that its disk is mounted.")


async def test_many_documents_are_gone(shell: Shell) -> None:
    notes = shell.home / "notes"
    notes.mkdir()
    for number in range(20):
        (notes / f"{number}.txt").write_text(f"Note {number}")
    words = ("sync", "dir", "--set", f"directory={notes}", "--index", "notes", "--embedded", "data")
    assert (await shell(*words)).code == 0
    for number in range(15):
        (notes / f"{number}.txt").unlink()
    seen = await shell(*words)
    assert "15 of 20 documents are gone from the source" in seen.text
    seen.is_quoted_by(
        "deletions-held-back", "documents are gone from the source, more than 10 documents and 10% of the index"
    )
    seen.is_quoted_by(
        "deletions-held-back", "nothing is deleted until somebody confirms it (callboard job confirm-deletes)"
    )


async def test_a_picture_has_no_text(shell: Shell) -> None:
    (shell.home / "plan.pdf").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    seen = await shell("extract", "plan.pdf")
    assert seen.code == 1
    seen.is_quoted_by("extraction", "It is an image, and no OCR hook is set.")

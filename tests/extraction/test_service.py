"""The service speaks the interface of existing deployments, and its client keeps failures apart from empty texts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import httpx
import pytest
import trio

from callboard.actors.extraction import (
    Extraction,
    ExtractionLimits,
    ExtractionSettings,
    Extractor,
    Status,
    open_extractor,
)
from callboard.actors.extraction.engines import File
from callboard.actors.extraction.recognition import Kind
from callboard.actors.extraction.service_app import ServiceApplication, answer
from callboard.actors.extraction.service_client import open_service
from callboard.actors.extraction.serving import open_extraction_service
from callboard.actors.extraction.spool import Spool

from .conftest import chunks_of

Settings = Callable[..., ExtractionSettings]
BASE = "http://service.test"


@asynccontextmanager
async def talking_to(extractor: Extractor, shared: Path | None = None) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=ServiceApplication(extractor, shared))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        yield client


async def test_the_interface_of_the_original(poison_settings: Settings) -> None:
    async with open_extractor(poison_settings()) as extractor, talking_to(extractor) as client:
        ping = await client.get("/ping/")
        assert (ping.status_code, ping.text) == (200, "Running!")
        assert (await client.get("/")).status_code == 200
        done = await client.put(
            "/extract_text/",
            content=b"%PDF-1.4 hello",
            headers={"content-type": "application/octet-stream", "accept": "application/json"},
        )
        assert done.status_code == 200
        members = done.json()
        assert members["extracted_text"] == "%PDF-1.4 hello"
        assert members["_meta"]["X-ELASTIC:service"] == "tika"
        assert members["_meta"]["X-ELASTIC:TIKA:parsed_by"]
        blank = await client.put("/extract_text/", content=b"%PDF-1.4 BLANK")
        assert (blank.status_code, blank.json()["extracted_text"]) == (200, "")


async def test_a_latin_1_text_without_a_name_is_read(poison_settings: Settings) -> None:
    async with open_extractor(poison_settings()) as extractor, talking_to(extractor) as client:
        done = await client.put("/extract_text/", content="très bien".encode("latin-1"))
    assert done.json()["extracted_text"] == "très bien"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status.TEXT, 200),
        (Status.TRUNCATED, 200),
        (Status.EMPTY, 200),
        (Status.ENCRYPTED, 422),
        (Status.CORRUPT, 422),
        (Status.UNSUPPORTED, 422),
        (Status.QUARANTINED, 422),
        (Status.TOO_LARGE, 413),
        (Status.TIMED_OUT, 504),
        (Status.FAILED, 500),
    ],
)
def test_each_status_has_an_answer(status: Status, code: int) -> None:
    given, members = answer(Extraction(status, "x", detail="why"), "embedded")
    assert given == code
    assert ("extracted_text" in members) == (code == 200)
    assert ("error" in members) == (code != 200)


def test_every_status_is_in_the_table_above() -> None:
    [mark] = [mark for mark in test_each_status_has_an_answer.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    assert {status for status, _ in mark.args[1]} == set(Status)


async def test_paths_are_read_below_the_shared_folder_and_nowhere_else(
    poison_settings: Settings, tmp_path: Path
) -> None:
    shared, outside = tmp_path / "shared", tmp_path / "outside.txt"
    _write(shared / "a b.pdf", b"%PDF-1.4 shared")
    _write(outside, b"secret")
    _link(shared / "link.txt", outside)
    async with open_extractor(poison_settings()) as extractor:
        async with talking_to(extractor, shared) as client:
            done = await client.put("/extract_text/", params={"local_file_path": str(shared / "a b.pdf")})
            assert done.json()["extracted_text"] == "%PDF-1.4 shared"
            for path in (outside, shared / "link.txt", shared / ".." / "outside.txt", Path("/etc/passwd")):
                refused = await client.put("/extract_text/", params={"local_file_path": str(path)})
                assert refused.status_code == 403, path
                assert "extracted_text" not in refused.json()
            missing = await client.put("/extract_text/", params={"local_file_path": str(shared / "none.pdf")})
            assert missing.status_code == 422
        async with talking_to(extractor) as client:
            refused = await client.put("/extract_text/", params={"local_file_path": str(shared / "a b.pdf")})
            assert refused.status_code == 403


async def test_other_calls_are_refused_politely(poison_settings: Settings) -> None:
    async with open_extractor(poison_settings()) as extractor, talking_to(extractor) as client:
        for method, path, code in (("POST", "/extract_text/", 405), ("PUT", "/ping/", 405), ("GET", "/x", 404)):
            refused = await client.request(method, path)
            assert (refused.status_code, bool(refused.json()["message"])) == (code, True)


async def test_client_and_service_over_a_socket_in_both_modes(poison_settings: Settings, tmp_path: Path) -> None:
    content = b"%PDF-1.4 hello " + b"x" * 2_000_000
    shared = tmp_path / "shared"
    _write(shared / ".keep", b"")
    async with (
        open_extractor(poison_settings(characters_max=3_000_000)) as behind,
        open_extraction_service(behind, shared_folder=shared) as url,
    ):
        for pointers in (False, True):
            settings = ExtractionSettings(
                service_url=url + "/",
                service_file_pointers=pointers,
                shared_folder=shared,
                limits=ExtractionLimits(characters_max=3_000_000),
            )
            async with open_extractor(settings) as extractor:
                assert extractor.engine_name == "service"
                found = await extractor.extract("a.pdf", chunks_of(content))
                small = await extractor.extract("b.pdf", chunks_of(b"%PDF-1.4 small"))
            assert (found.status, found.text) == (Status.TEXT, content.decode()), found.detail
            assert small.text == "%PDF-1.4 small"
        assert [path.name for path in _entries(shared)] == [".keep"]


@attrs.define
class Scripted(httpx.AsyncBaseTransport):
    """Answers `/extract_text/` with what the script says, in order; the last one again and again."""

    script: list[httpx.Response | Exception]
    asked: int = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/ping/":
            return httpx.Response(200, text="Running!")
        async for _ in request.stream:  # type: ignore[union-attr]
            pass
        step = self.script[min(self.asked, len(self.script) - 1)]
        self.asked += 1
        if isinstance(step, Exception):
            raise step
        return step


async def ask(tmp_path: Path, *script: httpx.Response | Exception) -> tuple[Extraction, int]:
    transport = Scripted(list(script))
    with Spool(tmp_path, ".pdf") as spool:
        await spool.write(b"%PDF-1.4")
        async with open_service(ExtractionSettings(service_url=BASE), transport) as service:
            return await service.read(File("a.pdf", spool, Kind.PDF)), transport.asked


def said(status: int, **members: object) -> httpx.Response:
    return httpx.Response(status, content=json.dumps(members).encode())


async def test_what_is_temporary_is_tried_again(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    good = said(200, extracted_text="text", _meta={})
    for first in (said(503, error="x"), said(429), httpx.ConnectError("refused"), httpx.ReadError("reset")):
        found, asked = await ask(tmp_path, first, good)
        assert (found.status, found.text, asked) == (Status.TEXT, "text", 2)


async def test_what_stays_down_fails_and_is_not_an_empty_text(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    for answered in (said(500, error="unexpected", message="boom"), httpx.ConnectError("refused")):
        found, asked = await ask(tmp_path, answered)
        assert (found.status, asked) == (Status.FAILED, 3)
        assert found.keeps_earlier_text
        assert found.may_succeed_later
        assert "boom" in found.detail or "refused" in found.detail


@pytest.mark.parametrize(
    ("answered", "status"),
    [
        (said(200, extracted_text=""), Status.EMPTY),
        (said(200, error="extraction error", message="TikaException"), Status.CORRUPT),
        (said(422, error="unprocessable", message="corrupt or encrypted"), Status.CORRUPT),
        (said(422, error="unprocessable", message="encrypted: It is protected"), Status.ENCRYPTED),
        (said(413, error="too large"), Status.TOO_LARGE),
        (said(404, error="nothing here"), Status.FAILED),
        (httpx.Response(200, content=b"<html>a proxy's page</html>"), Status.FAILED),
        (said(200, extracted_text=None), Status.FAILED),
    ],
)
async def test_each_answer_means_something(tmp_path: Path, answered: httpx.Response, status: Status) -> None:
    found, asked = await ask(tmp_path, answered)
    assert (found.status, asked) == (status, 1)


async def test_a_service_that_never_ends_its_answer_is_given_up(tmp_path: Path) -> None:
    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                await trio.lowlevel.checkpoint()
                yield b"x" * 2**20

    found, _ = await ask(tmp_path, httpx.Response(200, stream=Endless()))
    assert found.status is Status.TOO_LARGE


async def test_an_endless_answer_over_a_socket_is_given_up_too(tmp_path: Path) -> None:
    async def endless(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n")
            try:
                while True:
                    await stream.send_all(b"x" * 2**20)
            except trio.BrokenResourceError:
                return

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, endless, [listener])
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        with Spool(tmp_path, ".pdf") as spool:
            await spool.write(b"%PDF-1.4")
            limits = ExtractionLimits(characters_max=1000)
            async with open_service(
                ExtractionSettings(service_url=url, limits=limits, service_timeout_s=20)
            ) as service:
                found = await service.read(File("a.pdf", spool, Kind.PDF))
        nursery.cancel_scope.cancel()
    assert found.status is Status.TOO_LARGE


async def test_a_silent_service_is_given_up_at_the_time_limit(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/ping/":
                return httpx.Response(500)
            await trio.sleep_forever()
            raise AssertionError

    with Spool(tmp_path, ".pdf") as spool:
        await spool.write(b"%PDF-1.4")
        async with open_service(ExtractionSettings(service_url=BASE), Silent()) as service:
            found = await service.read(File("a.pdf", spool, Kind.PDF))
    assert found.status is Status.TIMED_OUT
    assert "30 s" in found.detail


class Between:
    """Passes bytes on between a client and a service, counts connections, and breaks those that the test wants broken."""

    def __init__(self, url: str) -> None:
        self.behind = int(url.rpartition(":")[2])
        self.connections = 0
        self.broken: set[int] = set()

    async def serve(self, client: trio.SocketStream) -> None:
        self.connections += 1
        breaks = self.connections in self.broken
        async with (
            client,
            await trio.open_tcp_stream("127.0.0.1", self.behind) as service,
            trio.open_nursery() as nursery,
        ):

            async def pump(source: trio.SocketStream, target: trio.SocketStream, *, to_service: bool) -> None:
                with suppress(trio.BrokenResourceError):
                    async for piece in source:
                        if breaks and to_service and b"/extract_text/" in piece:
                            break
                        await target.send_all(piece)
                nursery.cancel_scope.cancel()

            nursery.start_soon(lambda: pump(client, service, to_service=True))
            nursery.start_soon(lambda: pump(service, client, to_service=False))


@asynccontextmanager
async def counted_service(extractor: Extractor) -> AsyncIterator[tuple[Between, str]]:
    async with open_extraction_service(extractor) as url, trio.open_nursery() as nursery:
        between = Between(url)
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, between.serve, [listener])
        yield between, f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", ["note.xml", 'folder/Grüße; "1".xml', ""])
async def test_the_client_says_what_a_file_is_called(name: str) -> None:
    content = b"%PDF-1.4 hello"
    async with open_extractor(ExtractionSettings(engine="plain")) as plain:
        noting = Noting(plain)
        async with (
            open_extraction_service(noting) as url,
            open_extractor(ExtractionSettings(service_url=url)) as extractor,
        ):
            await extractor.extract(name, chunks_of(content))
    assert noting.names == [name.rpartition("/")[2]]


class Noting(Extractor):
    """Notes the names of files."""

    def __init__(self, behind: Extractor) -> None:
        self.behind, self.names = behind, list[str]()

    engine_name = "noting"

    def accepts(self, name: str) -> bool:
        return True

    async def extract(self, name: str, chunks: AsyncIterator[bytes], media_type: str | None = None) -> Extraction:
        self.names.append(name)
        return await self.behind.extract(name, chunks, media_type)


async def test_connections_are_used_again(poison_settings: Settings) -> None:
    async with open_extractor(poison_settings()) as behind, counted_service(behind) as (between, url):
        async with open_extractor(ExtractionSettings(service_url=url, workers=2)) as extractor:
            found: list[str] = []

            async def read(number: int) -> None:
                found.append((await extractor.extract(f"{number}.pdf", chunks_of(b"%%PDF-1.4 %d" % number))).text)

            for first in range(0, 40, 8):
                async with trio.open_nursery() as nursery:
                    for number in range(first, first + 8):
                        nursery.start_soon(read, number)
        assert sorted(found) == sorted(f"%PDF-1.4 {number}" for number in range(40))
        # Two at a time, and the one that asked whether the service is there is one of them.
        assert between.connections <= 3


async def test_a_connection_that_breaks_costs_a_try_and_no_file(poison_settings: Settings) -> None:
    async with open_extractor(poison_settings()) as behind, counted_service(behind) as (between, url):
        between.broken = {1, 2}
        async with open_extractor(ExtractionSettings(service_url=url, workers=1)) as extractor:
            with trio.fail_after(20):
                found = await extractor.extract("a.pdf", chunks_of(b"%PDF-1.4 hello"))
            again = await extractor.extract("b.pdf", chunks_of(b"%PDF-1.4 again"))
        assert (found.status, found.text, again.text) == (Status.TEXT, "%PDF-1.4 hello", "%PDF-1.4 again")
        assert between.connections == 3


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _entries(folder: Path) -> Iterator[Path]:
    return folder.iterdir()

"""Network drives against a real Samba that the tests start, and access control lists against bytes made by hand."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol.access import NOBODY
from callboard.sources import network_drive as module
from callboard.sources.conformance import SourceConformance, Subject
from callboard.sources.errors import (
    ConfigurationError,
    CredentialsError,
    NotFound,
    SourceError,
    Transient,
    UnexpectedAnswer,
)
from callboard.sources.network_drive import NetworkDrive, NetworkDriveConfig
from callboard.sources.network_drive_rights import (
    AccessEntry,
    directory_of,
    read_descriptor,
    read_people,
    read_sid,
    readers,
)
from callboard.sources.source import Checkpoint, Document, Failure, Identity, SourceContext

USER, PASSWORD = "root", "abc@123 /x"


class Server:
    """A Samba of its own, whose share `Folder1` is a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.share = folder / "share"
        self.share.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        settings = folder / "smb.conf"
        places = "\n".join(
            f"{name} = {folder}/{kind}"
            for name, kind in (
                ("private dir", "private"), ("lock directory", "lock"), ("state directory", "state"),
                ("cache directory", "cache"), ("pid directory", "pid"), ("ncalrpc dir", "ncalrpc"),
            )
        )  # fmt: skip
        for kind in ("private", "lock", "state", "cache", "pid", "ncalrpc"):
            (folder / kind).mkdir()
        settings.write_text(
            f"[global]\n{places}\ninterfaces = 127.0.0.1\nbind interfaces only = yes\nsmb ports = {self.port}\n"
            "server min protocol = SMB2\nload printers = no\ndisable spoolss = yes\nlog file = /dev/null\n"
            f"passdb backend = tdbsam:{folder}/private/passdb.tdb\nserver role = standalone server\n"
            f"[Folder1]\npath = {self.share}\nread only = no\nvfs objects = acl_xattr\nacl_xattr:ignore system acls = yes\n"
            # Storing attributes, at the first listing, would change the time of the last change.
            "store dos attributes = no\n",
            encoding="utf-8",
        )
        added = subprocess.run(
            ["smbpasswd", "-c", settings, "-a", "-s", USER],
            input=f"{PASSWORD}\n{PASSWORD}\n",
            text=True,
            capture_output=True,
        )
        assert added.returncode == 0, added.stderr
        self.settings = settings
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["smbd", "--foreground", "--no-process-group", f"--configfile={self.settings}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, "smbd ended at once"
            assert time.monotonic() < deadline, "smbd does not answer"
            time.sleep(0.05)

    def children(self) -> list[int]:
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        return [int(one) for one in listed.split()]

    def stop(self) -> None:
        for child in self.children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def write(self, *paths: str) -> None:
        for path in paths:
            place = self.share / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"content of {path}", encoding="utf-8")

    def empty(self) -> None:
        for one in self.share.iterdir():
            shutil.rmtree(one) if one.is_dir() else one.unlink()


@pytest.fixture(scope="module")
def running(server_missing: Callable[[str, str], NoReturn]) -> Iterator[Server]:
    if not shutil.which("smbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        server_missing("Samba", "sudo apt-get install samba samba-vfs-modules")
    if os.geteuid() != 0:
        pytest.skip("Samba needs an account of this machine, and only root may be one for sure")
    with tempfile.TemporaryDirectory(prefix="callboard-smb-") as folder:
        server = Server(Path(folder))
        yield server
        server.stop()


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    yield running
    running.empty()


def source(server: Server, **settings: Any) -> NetworkDrive:
    given = {"username": USER, "password": PASSWORD, "server_ip": "127.0.0.1", "server_port": server.port}
    secure = bool(settings.get("use_document_level_security"))
    return NetworkDrive(
        NetworkDriveConfig(**{**given, "drive_path": "Folder1", **settings}),
        SourceContext(document_level_security=secure),
    )


async def listed(subject: NetworkDrive, rules: Any = None) -> list[Any]:
    found: list[Any] = []
    async with subject.session(), aclosing(subject.partitions(rules)) as partitions:
        async for partition in partitions:
            async with aclosing(subject.documents(partition)) as items:
                async for item in items:
                    found += item if isinstance(item, list) else [item]
    return found


def paths(items: list[Any]) -> list[str]:
    return [item.fields["path"].partition("Folder1")[2] for item in items if isinstance(item, Document)]


async def test_files_and_folders_are_documents_as_existing_indices_have_them(server: Server) -> None:
    server.write("a.txt", "d1/b.html", "d1/d2/ü ñ.md")
    items = await listed(source(server))
    assert sorted(paths(items)) == ["\\a.txt", "\\d1", "\\d1\\b.html", "\\d1\\d2", "\\d1\\d2\\ü ñ.md"]
    found = {item.fields["title"]: item for item in items if isinstance(item, Document)}
    file = found["b.html"]
    assert file.id == str((server.share / "d1/b.html").stat().st_ino)
    assert file.fields["path"] == "\\\\127.0.0.1/Folder1\\d1\\b.html"
    assert file.fields["type"] == "file"
    assert file.fields["size"] == len("content of d1/b.html")
    assert file.timestamp is not None
    assert "+" not in file.timestamp
    assert found["d1"].fields["type"] == "folder"
    assert found["d1"].content is None
    assert all(item.access is None for item in found.values())


async def test_contents_are_read_in_pieces(server: Server) -> None:
    big = os.urandom(700_000)
    (server.share / "big.bin").write_bytes(big)
    subject = source(server)
    async with subject.session():
        [document] = [item for item in await listed(source(server)) if isinstance(item, Document)]
        assert document.content is not None
        async with subject.fetch(document.content) as chunks:
            read = [chunk async for chunk in chunks]
        assert b"".join(read) == big
        assert len(read) > 2
        (server.share / "big.bin").unlink()
        with pytest.raises(NotFound):
            async with subject.fetch(document.content):
                pass


async def test_a_path_below_the_share_is_the_root(server: Server) -> None:
    server.write("other.txt", "in/one.txt", "in/deep/two.txt")
    items = await listed(source(server, drive_path="Folder1/in"))
    assert sorted(paths(items)) == ["/in\\deep", "/in\\deep\\two.txt", "/in\\one.txt"]


async def test_what_is_missing_is_an_error_and_no_empty_listing(server: Server) -> None:
    for path in ("Nowhere", "Folder1/nowhere"):
        with pytest.raises(NotFound, match="drive_path"):
            await listed(source(server, drive_path=path))
        with pytest.raises(SourceError):
            await source(server, drive_path=path).validate()


async def test_wrong_credentials_and_dead_servers_are_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "random", lambda: _Prompt())
    with pytest.raises(CredentialsError, match="refuses the user 'root'") as caught:
        await source(server, password="wr0ng").ping()
    assert "wr0ng" not in str(caught.value)
    with pytest.raises(Transient, match=r"127\.0\.0\.1:9"):
        await source(server, server_port=9).ping()


class _Prompt:
    def uniform(self, low: float, high: float) -> float:
        return 0.0


async def test_a_listing_goes_on_behind_each_of_its_folders(server: Server) -> None:
    server.write(*(f"top/{a}/{b}/f.txt" for a in ("a", "b", "c") for b in ("x", "y")), "top/z.txt")
    subject = source(server)
    async with subject.session():
        [_, top] = [partition async for partition in subject.partitions()]
        # Samba guesses the time of creation from the others, and the first reading of a folder sets the one of its last access.
        assert [item async for item in subject.documents(top)]
        items = [item async for item in subject.documents(top)]
        places = [place for place, item in enumerate(items) if isinstance(item, Checkpoint)]
        assert len(places) == 10
        for place in places:
            rest = [item async for item in subject.documents(top, items[place].value)]
            assert rest == items[place + 1 :]


async def test_a_connection_that_is_killed_is_made_anew(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "random", lambda: _Prompt())
    server.write(*(f"top/{number:02}/f.txt" for number in range(8)))
    subject = source(server)
    found: list[Any] = []
    async with subject.session():
        [_, top] = [partition async for partition in subject.partitions()]
        async with aclosing(subject.documents(top)) as items:
            async for item in items:
                found.append(item)
                if len(found) == 4:
                    for child in server.children():
                        with suppress(ProcessLookupError):
                            os.kill(child, signal.SIGKILL)
    documents = [one for item in found if isinstance(item, list) for one in item if isinstance(one, Document)]
    assert len(documents) == 16
    assert len({document.id for document in documents}) == 16


async def test_a_folder_that_may_not_be_listed_keeps_its_documents(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.write("top/open/a.txt", "top/shut/b.txt")
    subject = source(server)
    real = subject._scan

    def scan(path: str) -> Any:
        if path.endswith("shut"):
            raise module.smbclient._io.SMBOSError(0xC0000022, path)
        return real(path)

    monkeypatch.setattr(subject, "_scan", scan)
    items = await listed(subject)
    [failure] = [item for item in items if isinstance(item, Failure)]
    assert failure.scope == "container"
    assert failure.what.endswith("shut")
    assert "\\top\\open\\a.txt" in paths(items)


async def test_rules_choose_files_and_folders_from_the_share_on(server: Server) -> None:
    server.write("in/a.txt", "in/b.pdf", "in/deep/c.pdf", "out/d.pdf")
    rules = [{"pattern": "Folder1/in/**/*.pdf"}]
    assert not await source(server).validate_rules(rules)
    assert sorted(paths(await listed(source(server), rules))) == ["\\in\\b.pdf", "\\in\\deep\\c.pdf"]
    assert sorted(paths(await listed(source(server), [{"pattern": "Folder1/*"}]))) == ["\\in", "\\out"]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"pattern": "x"}, "a list"),
        ([{"pattern": "a/b", "more": 1}], "one text"),
        ([{"pattern": 1}], "one text"),
        ([{"pattern": "/a/*"}], "absolute"),
        ([{"pattern": "*.txt"}], "name of the share"),
        ([{"pattern": "a/../b/*"}], "'..'"),
    ],
)
async def test_rules_that_cannot_be_used_are_explained(rules: Any, said: str) -> None:
    subject = NetworkDrive(NetworkDriveConfig(server_port=445))
    [problem] = await subject.validate_rules(rules)
    assert said in problem.message


async def test_documents_carry_who_may_read_them_also_under_rules(server: Server, tmp_path: Path) -> None:
    server.write("in/a.txt")
    people = tmp_path / "people.csv"
    people.write_text(
        "alice;S-1-5-21-1-2-3-1000;S-1-5-32-544,S-1-5-32-545\nbob;S-1-5-21-1-2-3-1001;\n", encoding="utf-8"
    )
    settings = {"use_document_level_security": True, "drive_type": "linux", "identity_mappings": str(people)}
    for rules in (None, [{"pattern": "Folder1/**/*"}]):
        documents = [item for item in await listed(source(server, **settings), rules) if isinstance(item, Document)]
        assert documents
        assert all(
            document.access and all(one.startswith("sid:S-1-") for one in document.access) for document in documents
        )
    subject = source(server, **settings)
    async with subject.session():
        await subject.validate()
        [page] = [page async for page in subject.identities()]
    assert isinstance(page, list)
    alice = page[0]
    assert alice.id == "S-1-5-21-1-2-3-1000"
    assert alice.fields == {"username": "user:alice", "user_id": "sid:S-1-5-21-1-2-3-1000"}
    assert alice.access[:2] == ["sid:S-1-5-21-1-2-3-1000", "user:alice"]
    assert {"sid:S-1-5-32-544", "sid:S-1-1-0"} <= set(alice.access)


async def test_rights_that_cannot_be_read_let_nobody_in(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.write("a.txt")
    subject = source(server, use_document_level_security=True, drive_type="linux")
    for fault in (module.smbclient._io.SMBOSError(0xC0000022, "a"), b"nonsense"):

        def descriptor(path: str, is_folder: bool, fault: Any = fault) -> bytes:
            if isinstance(fault, Exception):
                raise fault
            return bytes(fault)

        monkeypatch.setattr(subject, "_descriptor", descriptor)
        [document] = [item for item in await listed(subject) if isinstance(item, Document)]
        assert document.access == [NOBODY]


async def test_a_windows_server_is_not_asked_for_people(server: Server) -> None:
    with pytest.raises(ConfigurationError, match="drive type Linux"):
        await source(server, use_document_level_security=True, drive_type="windows").validate()


ALICE, BOB, STAFF, EVERYONE, STRANGER = (
    "S-1-5-21-1-2-3-1000",
    "S-1-5-21-1-2-3-1001",
    "S-1-5-32-545",
    "S-1-1-0",
    "S-1-5-21-9-9",
)
WHO = directory_of(
    [
        Identity(ALICE, {"username": "user:alice"}, [f"sid:{ALICE}", "user:alice", f"sid:{STAFF}", f"sid:{EVERYONE}"]),
        Identity(BOB, {"username": "user:bob"}, [f"sid:{BOB}", "user:bob", f"sid:{EVERYONE}"]),
    ]
)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (None, [EVERYONE, "S-1-5-11"]),
        ([], None),
        ([(0, 0, 0x1, ALICE)], [ALICE]),
        ([(0, 0, 0x1, STAFF)], [STAFF]),
        ([(0, 0, 0x2, ALICE)], None),
        ([(0, 0, 0x10000000, ALICE)], [ALICE]),
        ([(0, 0x08, 0x1, ALICE)], None),
        ([(1, 0, 0x116, ALICE), (0, 0, 0x1, ALICE)], [ALICE]),
        ([(1, 0, 0x1, ALICE), (0, 0, 0x1, ALICE), (0, 0, 0x1, STAFF)], None),
        ([(1, 0, 0x1, ALICE), (0, 0, 0x1, EVERYONE)], [BOB]),
        ([(1, 0, 0x1, STAFF), (0, 0, 0x1, ALICE), (0, 0, 0x1, BOB)], [BOB]),
        ([(1, 0, 0x1, EVERYONE), (0, 0, 0x1, ALICE)], None),
        ([(1, 0, 0x1, STRANGER), (0, 0, 0x1, ALICE)], None),
        ([(1, 0, 0x1, BOB), (0, 0, 0x1, STRANGER), (0, 0, 0x1, ALICE)], [ALICE]),
    ],
)
def test_the_truth_table_of_access(entries: Any, expected: list[str] | None) -> None:
    found = readers(None if entries is None else [AccessEntry(*one) for one in entries], WHO)
    assert sorted(found) == (sorted(f"sid:{one}" for one in expected) if expected else [NOBODY])


def test_a_denial_leaves_nobody_where_the_people_are_not_known() -> None:
    entries = [AccessEntry(1, 0, 0x1, BOB), AccessEntry(0, 0, 0x1, ALICE)]
    assert readers(entries, directory_of([])) == [NOBODY]


def _sid(text: str) -> bytes:
    _, revision, authority, *parts = text.split("-")
    head = bytes([int(revision), len(parts)]) + int(authority).to_bytes(6, "big")
    return head + struct.pack(f"<{len(parts)}I", *map(int, parts))


def _descriptor(entries: list[tuple[int, int, int, str]]) -> bytes:
    body = b""
    for kind, flags, mask, sid in entries:
        raw = _sid(sid)
        body += struct.pack("<BBHI", kind, flags, 8 + len(raw), mask) + raw
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(body), len(entries), 0) + body
    return struct.pack("<BBHIIII", 1, 0, 0x8004, 0, 0, 0, 20) + acl


sids = st.builds(
    lambda parts: "-".join(["S-1-5", *map(str, parts)]), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6)
)
entries = st.tuples(st.sampled_from([0, 1]), st.integers(0, 255), st.integers(0, 2**32 - 1), sids)


@given(st.lists(entries, max_size=5))
def test_descriptors_are_read_as_they_were_written(written: list[tuple[int, int, int, str]]) -> None:
    assert read_descriptor(_descriptor(written)) == [AccessEntry(*one) for one in written]


@given(st.lists(entries, min_size=1, max_size=3), st.data())
def test_a_descriptor_that_is_cut_short_is_an_error_or_a_list(written: Any, data: Any) -> None:
    raw = _descriptor(written)
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    with suppress(UnexpectedAnswer):
        assert read_descriptor(cut) is not None


@given(st.binary(max_size=120))
def test_nonsense_is_an_error_and_nothing_else(raw: bytes) -> None:
    for read in (read_descriptor, read_sid):
        with suppress(UnexpectedAnswer):
            read(raw)


@pytest.mark.parametrize(
    ("text", "said"), [("alice", "Line 1"), ("a;S-1-5\n;S-1-5", "Line 2"), ("a;nonsense", "Line 1")]
)
def test_lines_that_cannot_be_read_are_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "people.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=said):
        read_people(str(file))
    for path in ("", str(tmp_path / "absent.csv")):
        with pytest.raises(ConfigurationError, match="identity_mappings"):
            read_people(path)


@pytest.mark.parametrize(("path", "said"), [("/a", "slash"), ("\\a", "slash"), (" ", "share"), ("a/../b", "'..'")])
def test_paths_that_cannot_be_meant_are_refused(path: str, said: str) -> None:
    [(field, problem)] = NetworkDriveConfig(server_port=445, drive_path=path).complaints()
    assert field == "drive_path"
    assert said in problem


async def test_a_cancelled_listing_is_gone_at_once(server: Server) -> None:
    server.write(*(f"top/{number}/f.txt" for number in range(30)))
    with trio.fail_after(3), trio.move_on_after(0.05):
        await listed(source(server))


class TestConformance(SourceConformance):
    @pytest.fixture
    def subject(self, server: Server) -> Subject:
        server.write("a.txt", "b.txt", *(f"top/{number}/f.txt" for number in range(4)))
        return Subject(
            lambda: source(server),
            refused=lambda: source(server, password="wr0ng pass"),
            secrets=("wr0ng pass", PASSWORD),
            # Without stored attributes this Samba guesses the time of creation from times that reading changes.
            volatile_fields=("created_at",),
        )

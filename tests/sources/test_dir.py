"""The folder source: a temporary folder is the real thing."""

from __future__ import annotations

import os
import shutil
from contextlib import aclosing
from hashlib import md5
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol.configuration import InvalidConfiguration, read_configuration, schema_of
from callboard.sources import dir as dir_source
from callboard.sources.dir import Directory, DirectoryConfig
from callboard.sources.errors import ConfigurationError, NotFound, PermissionDenied, SourceError
from callboard.sources.glob_pattern import InvalidPattern, compile_pattern
from callboard.sources.source import Checkpoint, Document, Failure


@attrs.define
class Listed:
    documents: list[Document] = attrs.field(factory=list)
    failures: list[Failure] = attrs.field(factory=list)
    checkpoints: list[Any] = attrs.field(factory=list)

    def names(self, root: Path) -> list[str]:
        return sorted(os.path.relpath(one.fields["path"], root) for one in self.documents)


def source(root: Path, pattern: str = "**/*") -> Directory:
    return Directory(DirectoryConfig(directory=str(root), pattern=pattern))


async def listed(one: Directory) -> Listed:
    found = Listed()
    async with one.session(), aclosing(one.partitions()) as partitions:
        async for partition in partitions:
            async with aclosing(one.documents(partition)) as documents:
                async for page in documents:
                    for item in [page] if isinstance(page, Document | Failure | Checkpoint) else page:
                        match item:
                            case Document():
                                found.documents.append(item)
                            case Failure():
                                found.failures.append(item)
                            case Checkpoint(value):
                                found.checkpoints.append((partition, value))
    return found


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


async def test_every_file_is_a_document_with_the_fields_of_its_status(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.txt", "b/c.md", "b/d/e.PDF", ".hidden.txt")
    found = await listed(source(root, "**/*.*"))
    assert found.names(root) == [".hidden.txt", "a.txt", "b/c.md", "b/d/e.PDF"]
    document = next(one for one in found.documents if one.fields["path"].endswith("a.txt"))
    path = str(root / "a.txt")
    assert document.id == md5(path.encode(), usedforsecurity=False).hexdigest()
    status = (root / "a.txt").stat()
    assert document.fields["size"] == 5
    assert document.fields["inode_number"] == status.st_ino
    assert document.fields["last_modified_time"] == document.timestamp
    assert str(document.timestamp).endswith("+00:00")
    assert document.content is not None
    assert document.content.name == "a.txt"


async def test_content_is_read_in_chunks_and_does_not_touch_the_access_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dir_source, "READ_SIZE_BYTES", 3)
    tree(tmp_path, "a.txt")
    os.utime(tmp_path / "a.txt", (1_000_000_000, 1_100_000_000))
    one = source(tmp_path)
    (document,) = (await listed(one)).documents
    assert document.content is not None
    async with one.fetch(document.content) as chunks:
        assert [chunk async for chunk in chunks] == [b"a.t", b"xt"]
    assert (tmp_path / "a.txt").stat().st_atime == 1_000_000_000


async def test_a_file_that_vanished_before_it_was_read_is_not_found(tmp_path: Path) -> None:
    one = source(tree(tmp_path, "a.txt"))
    (document,) = (await listed(one)).documents
    (tmp_path / "a.txt").unlink()
    assert document.content is not None
    with pytest.raises(NotFound, match=r"a\.txt"):
        async with one.fetch(document.content) as chunks:
            await anext(chunks)


async def test_links_are_followed_to_files_inside_and_never_to_folders(tmp_path: Path) -> None:
    outside = tree(tmp_path / "outside", "secret.txt")
    root = tree(tmp_path / "root", "real.txt", "sub/x.txt")
    (root / "link.txt").symlink_to(root / "real.txt")
    (root / "loop").symlink_to(root)
    (root / "broken.txt").symlink_to(root / "nothing.txt")
    (root / "out.txt").symlink_to(outside / "secret.txt")
    os.mkfifo(root / "pipe.txt")
    found = await listed(source(root))
    assert found.names(root) == ["link.txt", "real.txt", "sub/x.txt"]
    (failure,) = found.failures
    assert failure.what.endswith("out.txt")
    assert "outside" in failure.cause


async def test_a_name_that_is_no_text_is_reported_and_the_walk_goes_on(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt", "z.txt", "sub/b.txt")
    os.close(os.open(os.fsencode(tmp_path) + b"/b\xff.txt", os.O_CREAT))
    os.makedirs(os.fsencode(tmp_path) + b"/sub\xff")  # noqa: PTH103 - the name is no text
    found = await listed(source(tmp_path))
    assert found.names(tmp_path) == ["a.txt", "sub/b.txt", "z.txt"]
    (failure,) = found.failures
    assert failure.scope == "item"
    assert failure.document_id, (
        "without an id the failure would stand for unknown documents and hold back every deletion"
    )
    assert "b\\udcff.txt" in failure.what


async def test_a_folder_that_cannot_be_listed_is_a_container_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path, "a/x.txt", "b/locked/y.txt", "b/z.txt")
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = await listed(source(root))
    assert found.names(root) == ["a/x.txt", "b/z.txt"]
    (failure,) = found.failures
    assert (failure.scope, failure.what) == ("container", str(root / "b/locked"))


async def test_each_top_folder_is_a_partition(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/x.txt", "b/z.txt", "top.txt")
    one = source(root)
    keys = [partition.key async for partition in one.partitions()]
    assert keys == [".", "a/", "b/"]


async def test_too_many_top_folders_are_one_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dir_source, "TOP_FOLDERS_MAX", 3)
    root = tree(tmp_path, *(f"{number}/x.txt" for number in range(5)), "top.txt")
    one = source(root)
    assert [partition.key async for partition in one.partitions()] == ["all"]
    assert len((await listed(one)).documents) == 6


async def test_a_listing_goes_on_from_each_of_its_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dir_source, "PAGE_FILES", 2)
    root = tree(
        tmp_path,
        *(f"d/{folder}{number}/f{number}.txt" for folder in "ab" for number in range(4)),
        "d/a.txt",
        "d/b1.txt",
    )
    one = source(root)
    whole = await listed(one)
    assert len(whole.checkpoints) >= 4
    for partition, value in whole.checkpoints:
        ids: list[str] = []
        async with aclosing(one.documents(partition, value)) as documents:
            async for page in documents:
                ids += [item.id for item in page if isinstance(item, Document)] if isinstance(page, list) else []
        all_ids = [document.id for document in whole.documents]
        assert ids == all_ids[len(all_ids) - len(ids) :]
        assert len(ids) < len(all_ids)


@pytest.mark.parametrize("asked", ["ping", "validate", "list"])
@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [("missing", NotFound, "does not exist"), ("file.txt", ConfigurationError, "is a file, not a folder")],
)
async def test_a_root_that_cannot_be_listed_is_never_an_empty_one(
    tmp_path: Path, asked: str, name: str, kind: type[SourceError], part: str
) -> None:
    tree(tmp_path, "file.txt")
    one = source(tmp_path / name)
    with pytest.raises(kind, match=part):
        await {"ping": one.ping, "validate": one.validate, "list": lambda: listed(one)}[asked]()  # type: ignore[operator]


async def test_a_root_that_goes_away_while_it_is_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dir_source, "PAGE_FILES", 1)
    root = tree(tmp_path / "root", "a/1.txt", "a/2.txt", "a/3.txt")
    one = source(root)
    partitions = [partition async for partition in one.partitions()]
    async with aclosing(one.documents(partitions[1])) as documents:
        await anext(documents)
        shutil.rmtree(root)
        with pytest.raises(SourceError):
            async for _ in documents:
                pass


async def test_no_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionDenied, match="may not be read by this user"):
        await source(tmp_path).ping()


def test_a_pattern_that_leads_out_is_refused_with_the_configuration() -> None:
    stored = schema_of(DirectoryConfig)
    stored["directory"]["value"], stored["pattern"]["value"] = "/srv", "../*"
    with pytest.raises(InvalidConfiguration, match="leads out of the folder"):
        read_configuration(DirectoryConfig, stored)


@pytest.mark.parametrize("pattern", ["", "/etc/*", "~/x", "a/../../b", "a**", "**", "a/**"])
def test_a_useless_pattern_says_why(pattern: str) -> None:
    with pytest.raises(InvalidPattern):
        compile_pattern(pattern)


names = st.lists(
    st.text("ab.", min_size=1, max_size=3).filter(lambda name: name not in (".", "..")), min_size=1, max_size=4
)
patterns = st.lists(st.sampled_from(["**", "*", "*.*", "a*", "?", "[ab]", "a.b", "*b"]), min_size=1, max_size=4)


@given(names, patterns)
def test_patterns_match_as_pathlib_does(path: list[str], pattern: list[str]) -> None:
    if pattern[-1] == "**":
        pattern = [*pattern, "*"]
    text = "/".join(pattern)
    assert compile_pattern(text)(path) == _pathlib_would(path, pattern)


def _pathlib_would(path: list[str], pattern: list[str]) -> bool:
    """What globbing means, written down a second time and in the plainest way."""
    if not pattern or not path:
        return not pattern and not path
    if pattern[0] == "**":
        return _pathlib_would(path, pattern[1:]) or _pathlib_would(path[1:], pattern)
    from pathlib import PurePosixPath

    return PurePosixPath(path[0]).match(pattern[0]) and _pathlib_would(path[1:], pattern[1:])

"""The scripted source does what its script says, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from contextlib import aclosing
from typing import Any

import pytest
import trio

from callboard.sources.errors import NotFound, PermissionDenied, Transient
from callboard.sources.scripted import Change, FileScript, PartScript, Script, ScriptedSource
from callboard.sources.source import Checkpoint, ContentRef, Document, Failure, Partition


def corpus(count: int = 25) -> dict[str, list[Document]]:
    return {"p": [Document(f"d-{n:02}", {"n": n}) for n in reversed(range(count))]}


async def listed(source: ScriptedSource, checkpoint: Any = None) -> tuple[list[str], list[Any]]:
    ids: list[str] = []
    checkpoints: list[Any] = []
    async with aclosing(source.documents(Partition("p"), checkpoint)) as listing:
        async for found in listing:
            for item in found if isinstance(found, list) else [found]:
                if isinstance(item, Document):
                    ids.append(item.id)
                elif isinstance(item, Checkpoint):
                    checkpoints.append(item.value)
    return ids, checkpoints


async def read(source: ScriptedSource, name: str) -> bytes:
    async with source.fetch(ContentRef(name)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_lists_in_pages_in_the_order_of_ids_and_goes_on_from_a_checkpoint() -> None:
    source = ScriptedSource(corpus(), Script(other_parts=PartScript(page_documents=10)))
    ids, checkpoints = await listed(source)
    assert ids == [f"d-{n:02}" for n in range(25)]
    assert checkpoints == ["d-09", "d-19", "d-24"]
    assert (await listed(source, "d-19"))[0] == ids[20:]
    assert source.happened.started_from == {"p": "d-19"}
    assert source.happened.pages == 4


async def test_breaks_at_its_page_and_never_becomes_a_short_listing() -> None:
    script = Script(
        parts={"p": PartScript(page_documents=10, fails_at_page=2, error=lambda: PermissionDenied("not you"))}
    )
    source = ScriptedSource(corpus(), script)
    with pytest.raises(PermissionDenied, match="not you"):
        await listed(source)
    assert source.happened.listed == [f"d-{n:02}" for n in range(10)]
    assert source.happened.listings_broken == 1


async def test_names_documents_twice_and_hides_the_ones_that_failed() -> None:
    failure = Failure("item", "d-03", "no right", document_id="d-03")
    source = ScriptedSource(corpus(5), Script(other_parts=PartScript(repeated={"d-01"}, failures=[failure])))
    assert (await listed(source))[0] == ["d-00", "d-01", "d-02", "d-04", "d-01"]
    assert (source.happened.repeated, source.happened.failures) == (1, 1)


async def test_yields_single_documents_and_no_checkpoints_if_told_so() -> None:
    source = ScriptedSource(corpus(3), Script(other_parts=PartScript(one_by_one=True, checkpoints=False)))
    async with aclosing(source.documents(Partition("p"))) as listing:
        assert [type(item) async for item in listing] == [Document] * 3


async def test_changes_during_the_scan_are_seen_by_later_pages_only(autojump_clock: trio.testing.MockClock) -> None:
    documents = corpus(20)

    def change(_part: str, page: int) -> None:
        if page == 2:
            documents["p"] = [one for one in documents["p"] if one.id not in ("d-02", "d-12")]

    source = ScriptedSource(
        documents, Script(other_parts=PartScript(page_documents=10, page_delay_s=3)), on_page=change
    )
    ids, _ = await listed(source)
    assert "d-02" in ids
    assert "d-12" not in ids
    assert trio.current_time() == pytest.approx(9)


async def test_the_corpus_stays_as_it_is_whatever_is_done_with_a_listed_document() -> None:
    documents = corpus(1)
    async with aclosing(ScriptedSource(documents).documents(Partition("p"))) as listing:
        async for page in listing:
            if isinstance(page, list):
                page[0].fields["added"] = True
    assert documents["p"][0].fields == {"n": 0}


async def test_naming_partitions_can_break() -> None:
    source = ScriptedSource({"a": [], "b": []}, Script(naming_fails_after=1))
    named: list[str] = []
    async with aclosing(source.partitions()) as partitions:
        named.append((await anext(partitions)).key)
        with pytest.raises(Transient):
            await anext(partitions)
    assert named == ["a"]


async def test_ping_fails_if_told_so() -> None:
    await ScriptedSource({}).ping()
    with pytest.raises(PermissionDenied):
        await ScriptedSource({}, Script(ping_error=lambda: PermissionDenied("no"))).ping()


async def test_downloads_break_a_number_of_times_and_then_work(autojump_clock: trio.testing.MockClock) -> None:
    files = {"f.txt": b"x" * 10_000}
    source = ScriptedSource({}, Script(files={"f.txt": FileScript(fails_after_bytes=5000, fails_times=2)}), files=files)
    for _ in range(2):
        with pytest.raises(Transient):
            await read(source, "f.txt")
    assert await read(source, "f.txt") == files["f.txt"]
    assert source.happened.downloads_broken == 2


async def test_downloads_are_slow_huge_or_missing(autojump_clock: trio.testing.MockClock) -> None:
    script = Script(files={"big.txt": FileScript(repeats=3, delay_s=2, chunk_delay_s=1)})
    source = ScriptedSource({}, script, files={"big.txt": b"y" * 5000})
    assert len(await read(source, "big.txt")) == 15_000
    assert trio.current_time() == pytest.approx(2 + 6)
    with pytest.raises(NotFound, match=r"gone\.txt"):
        await read(source, "gone.txt")


async def test_a_listing_ends_early_without_a_word_only_if_the_script_says_so() -> None:
    source = ScriptedSource(corpus(), Script(other_parts=PartScript(page_documents=10, ends_after=12)))
    assert (await listed(source))[0] == [f"d-{n:02}" for n in range(12)]
    assert source.happened.cut_short == 1
    empty = ScriptedSource(corpus(), Script(other_parts=PartScript(ends_after=0)))
    assert (await listed(empty))[0] == []
    assert empty.happened.cut_short == 1
    whole = ScriptedSource(corpus(), Script(other_parts=PartScript(page_documents=10, ends_after=25)))
    assert len((await listed(whole))[0]) == 25
    assert whole.happened.cut_short == 0


async def test_partitions_are_left_out_without_a_word() -> None:
    source = ScriptedSource({"p": [], "q": [], "r": []}, Script(naming_ends_after=2))
    async with aclosing(source.partitions()) as named:
        assert [one.key async for one in named] == ["p", "q"]
    assert source.happened.cut_short == 1


async def test_empty_pages_come_between_and_documents_come_again_at_the_end() -> None:
    script = Script(other_parts=PartScript(page_documents=2, empty_pages={1, 3}, repeated_at_end={"d-00"}))
    source = ScriptedSource(corpus(4), script)
    async with aclosing(source.documents(Partition("p"))) as listing:
        sizes = [len(found) async for found in listing if isinstance(found, list)]
    assert sizes == [0, 2, 0, 2, 1]
    assert (source.happened.empty_pages, source.happened.repeated) == (2, 1)


async def test_a_huge_document_is_made_while_it_is_listed() -> None:
    documents = corpus(2)
    source = ScriptedSource(documents, Script(other_parts=PartScript(padding_bytes={"d-01": 1_000_000})))
    async with aclosing(source.documents(Partition("p"))) as listing:
        pages = [found async for found in listing if isinstance(found, list)]
    assert [len(str(one.fields.get("padding", ""))) for one in pages[0] if isinstance(one, Document)] == [0, 1_000_000]
    assert all("padding" not in one.fields for one in documents["p"])


async def test_a_scripted_change_happens_once_and_only_later_pages_see_it() -> None:
    documents = corpus(6)
    change = Change(
        part="p", page=2, remove={"d-00", "d-05"}, put=[Document("d-03", {"n": "new"}), Document("d-99", {})]
    )
    source = ScriptedSource(documents, Script(other_parts=PartScript(page_documents=2), changes=[change]))
    assert (await listed(source))[0] == ["d-00", "d-01", "d-02", "d-03", "d-04", "d-99"]
    documents["p"] = [*documents["p"], Document("d-05", {})]
    assert "d-05" in (await listed(source))[0]
    assert source.happened.changes == 1


async def test_listings_and_downloads_hang_until_they_are_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    script = Script(other_parts=PartScript(hangs_at_page=1), other_files=FileScript(hangs_after_bytes=0))
    source = ScriptedSource(corpus(), script, files={"f": b"x"})
    with trio.move_on_after(3600) as listing:
        await listed(source)
    with trio.move_on_after(3600) as download:
        await read(source, "f")
    assert listing.cancelled_caught
    assert download.cancelled_caught


async def test_a_file_ends_early_and_people_cannot_be_listed_to_their_end() -> None:
    script = Script(
        files={"f": FileScript(ends_after_bytes=5000)}, identities_error=lambda: PermissionDenied("no people")
    )
    source = ScriptedSource(corpus(), script, files={"f": b"x" * 20_000})
    assert len(await read(source, "f")) == 8192
    assert source.happened.cut_short == 1
    async with aclosing(source.identities()) as people:
        assert await anext(people) == []
        with pytest.raises(PermissionDenied, match="no people"):
            await anext(people)


def test_all_of_it_is_there_under_one_name() -> None:
    from callboard import testing

    assert {getattr(testing, name).__name__ for name in testing.__all__ if name != "Corpus"} == {
        name for name in testing.__all__ if name != "Corpus"
    }
    assert set(testing.__all__) <= set(dir(testing))
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = testing.nothing_of_the_kind
    code = "import sys, callboard.testing; print([one for one in ('trio', 'httpx', 'pytest') if one in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"

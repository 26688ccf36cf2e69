"""Confluence Cloud against Backlot, which others wrote: CQL, both ways of paging, logins and errors as it has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from callboard.sources.confluence import Confluence, ConfluenceConfig
from callboard.sources.errors import CredentialsError, NotFound, SourceError
from callboard.sources.source import Partition

from .backlot_server import backlot_over
from .foreign_servers import backlot_program
from .test_confluence import listed, resumed

TOKEN = "a-token-of-our-own"
RECORDS: list[dict[str, Any]] = [
    {
        "source_type": "confluence",
        "doc_id": f"{space}-{number}",
        "space": space,
        "title": f"{space} page {number}",
        "content": f"Words of {space} {number}",
        "author_email": "ann@acme.com",
        "subtype": "blogpost" if number % 10 == 0 else "page",
        "labels": ["handbook"] if number % 2 else [],
        "visibility": "public",
        "created": 1_700_000_000 + number,
    }
    for space in ("engineering", "people")
    for number in range(130)
]


@attrs.frozen
class Backlot:
    url: str


@pytest.fixture(scope="module")
def backlot_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backlot]:
    with backlot_over(backlot_program(), tmp_path_factory.mktemp("backlot"), RECORDS, TOKEN) as url:
        yield Backlot(url)


def source(site: Backlot, *spaces: str, token: str = TOKEN, **settings: Any) -> Confluence:
    config = ConfluenceConfig(
        data_source="confluence_cloud",
        confluence_url=site.url,
        account_email="ann@acme.com",
        api_token=token,
        spaces=list(spaces) or ["*"],
        **settings,
    )
    return Confluence(config)


async def test_its_spaces_are_found(backlot_site: Backlot) -> None:
    one = source(backlot_site)
    async with one.session():
        await one.ping()
        await one.validate()
        keys = [partition.data["key"] async for partition in one.partitions()]
    assert len(keys) == 2
    named = source(backlot_site, *keys)
    async with named.session():
        await named.validate()


async def test_its_cql_finds_every_page_once(backlot_site: Backlot) -> None:
    one = source(backlot_site)
    async with one.session():
        found = await listed(one, [{"query": "type = page"}, {"query": "label = handbook"}])
        assert not found.failures
        titles = sorted(document.fields["title"] for document in found.documents.values())
        assert titles == sorted(record["title"] for record in RECORDS if record["subtype"] == "page")
        page = next(one for one in found.documents.values() if one.fields["title"] == "people page 7")
        assert "Words of people 7" in page.fields["body"]
        assert page.fields["type"] == "page"
        assert page.timestamp
        alone = await listed(one, [{"query": "type = page"}])
        partition, value = alone.checkpoints[0]
        assert await resumed(one, partition, value) == list(alone.documents)[100:]


async def test_its_space_alone_is_found(backlot_site: Backlot) -> None:
    one = source(backlot_site)
    async with one.session():
        keys = [partition.data["key"] async for partition in one.partitions()]
        found = await listed(one, [{"query": f"space = {keys[0]} and type = blogpost"}])
    assert len(found.documents) == 13
    assert {document.fields["type"] for document in found.documents.values()} == {"blogpost"}


async def test_its_refusals_are_ours(backlot_site: Backlot) -> None:
    one = source(backlot_site, token="wrong")
    async with one.session():
        with pytest.raises(CredentialsError):
            await one.ping()
        with pytest.raises(SourceError):
            await listed(one, [{"query": "type = page"}])
    one = source(backlot_site)
    async with one.session():
        with pytest.raises(NotFound, match="no space 'NOPE'"):
            await resumed(one, Partition("space/NOPE", {"key": "NOPE"}), None)


async def test_rights_it_does_not_tell_let_nobody_in(backlot_site: Backlot) -> None:
    """It has no address for what a page is restricted to; a page of which that is not known is for nobody."""
    one = source(backlot_site, use_document_level_security=True, retry_count=0)
    async with one.session():
        found = await listed(one, [{"query": "label = handbook and type = blogpost"}])
    assert not found.documents
    async with one.session():
        found = await listed(one, [{"query": "label = handbook"}])
    assert found.documents
    assert {tuple(document.access or ()) for document in found.documents.values()} == {("callboard:nobody",)}

"""Confluence against a double that refuses what Confluence refuses, under virtual time: nobody really waits for a limit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import attrs
import httpx
import pytest
import trio
from trio.testing import MockClock

from callboard.protocol.configuration import InvalidConfiguration, read_configuration, schema_of
from callboard.sources.confluence import Confluence, ConfluenceConfig
from callboard.sources.confluence import client as module
from callboard.sources.conformance import SourceConformance, Subject
from callboard.sources.errors import (
    ConfigurationError,
    CredentialsError,
    NotFound,
    PermissionDenied,
    SourceError,
    Throttled,
    Transient,
    UnexpectedAnswer,
)
from callboard.sources.http import RepeatedPage
from callboard.sources.source import Checkpoint, Document, Failure, Partition

from .confluence_double import AT, MEDIA, SECRET, ConfluenceDouble, Cut, Edition, refusal

EDITIONS: tuple[Edition, ...] = ("confluence_cloud", "confluence_server", "confluence_data_center")


def stood_in(monkeypatch: pytest.MonkeyPatch, double: ConfluenceDouble) -> None:
    real = module.open_http
    monkeypatch.setattr(
        module, "open_http", lambda settings, auth: real(settings, auth=auth, transport=httpx.MockTransport(double))
    )


def filled(edition: Edition, context: str = "") -> ConfluenceDouble:
    double = ConfluenceDouble(edition, context)
    for name in ("ann", "bob", "cy"):
        double.person(name)
    double.space("DOC", groups={"everyone"})
    double.space("OPS", groups={"everyone"})
    for number in range(1, 8):
        double.content(f"p{number}", "DOC", parent="p1" if number > 1 else None, labels=["a", "b", "c"][: number % 4])
    double.content("b1", "DOC", type="blogpost")
    double.contents["p2"].attachments.update({"notes.txt": b"the notes", "a b&c#.md": b"more", "empty.txt": b""})
    double.contents["p3"].comments = 3
    double.content("o1", "OPS")
    return double


@pytest.fixture(params=EDITIONS)
def edition(request: pytest.FixtureRequest) -> Edition:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def wiki(edition: Edition, monkeypatch: pytest.MonkeyPatch) -> ConfluenceDouble:
    double = filled(edition, "" if edition == "confluence_cloud" else "/confluence")
    stood_in(monkeypatch, double)
    return double


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> ConfluenceDouble:
    double = filled("confluence_cloud")
    stood_in(monkeypatch, double)
    return double


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> ConfluenceDouble:
    double = filled("confluence_server")
    stood_in(monkeypatch, double)
    return double


def source(double: ConfluenceDouble, *spaces: str, secret: str = SECRET, **settings: Any) -> Confluence:
    chosen: dict[str, Any] = {
        "confluence_cloud": {"account_email": "me", "api_token": secret},
        "confluence_server": {"username": "me", "password": secret},
        "confluence_data_center": {"data_center_username": "me", "data_center_password": secret},
    }[double.edition]
    config = ConfluenceConfig(
        data_source=double.edition,
        confluence_url=double.site,
        spaces=list(spaces) or ["*"],
        **(chosen | settings),
    )
    return Confluence(config)


@attrs.define
class Listed:
    documents: dict[str, Document] = attrs.field(factory=dict)
    failures: list[Failure] = attrs.field(factory=list)
    checkpoints: list[tuple[Partition, Any]] = attrs.field(factory=list)
    partitions: list[str] = attrs.field(factory=list)


async def listed(one: Confluence, rules: Any = None) -> Listed:
    result = Listed()
    async with aclosing(one.partitions(rules)) as partitions:
        async for partition in partitions:
            result.partitions.append(partition.key)
            async with aclosing(one.documents(partition)) as pages:
                async for page in pages:
                    for item in page if isinstance(page, list) else [page]:
                        if isinstance(item, Document):
                            assert item.id not in result.documents
                            result.documents[item.id] = item
                        elif isinstance(item, Failure):
                            result.failures.append(item)
                        else:
                            assert isinstance(item, Checkpoint)
                            result.checkpoints.append((partition, item.value))
    return result


async def opened(one: Confluence, rules: Any = None) -> Listed:
    async with one.session():
        return await listed(one, rules)


async def content_of(one: Confluence, document: Document) -> bytes:
    assert document.content is not None
    async with one.fetch(document.content) as chunks:
        return b"".join([chunk async for chunk in chunks])


# What is read


async def test_everything_becomes_documents(wiki: ConfluenceDouble) -> None:
    one = source(wiki, index_comments=True)
    async with one.session():
        await one.ping()
        await one.validate()
        found = await listed(one)
        assert await content_of(one, found.documents["att-p2-a b&c#.md"]) == b"more"
    assert found.partitions == ["space/DOC", "space/OPS"]
    assert not found.failures
    kinds = [document.fields["type"] for document in found.documents.values()]
    counted = {kind: kinds.count(kind) for kind in kinds}
    assert counted == {"Space": 2, "page": 8, "blogpost": 1, "attachment": 3, "comment": 3}
    assert found.documents["att-p2-empty.txt"].content is None
    assert all(document.access is None for document in found.documents.values())


async def test_documents_have_the_fields_of_the_reference(wiki: ConfluenceDouble) -> None:
    found = (await opened(source(wiki, "DOC", index_labels=True))).documents
    author = "ann"
    page = found["p3"]
    assert page.timestamp == AT
    assert page.fields == {
        "type": "page",
        "title": "Title of p3",
        "ancestors": [{"title": "Title of p1"}],
        "space": "Space DOC",
        "body": "Body of p3",
        "url": f"{wiki.base}/pages/p3",
        "author": author,
        "createdDate": AT,
        "labels": ["a", "b", "c"],
    }
    assert found["p1"].fields["labels"] == ["a"]
    assert found["att-p2-notes.txt"].fields == {
        "type": "attachment",
        "title": "notes.txt",
        "space": "Space DOC",
        "page": "Title of p2",
        "size": 9,
        "url": f"{wiki.base}/att/notes.txt",
        "createdDate": AT,
    }
    space = found[str(wiki.spaces["DOC"].id)]
    on_cloud = {"createdDate": AT, "author": author} if wiki.is_cloud else {}
    assert space.fields == {
        "type": "Space",
        "title": "Space DOC",
        "url": f"{wiki.base}/spaces/DOC",
        "key": "DOC",
        **on_cloud,
    }
    assert "com-p3-0" not in found, "comments are read only if that is wanted"


async def test_pages_are_followed_to_the_end(wiki: ConfluenceDouble) -> None:
    for number in range(20, 150):
        wiki.content(f"p{number}", "DOC")
    for number in range(30):
        wiki.contents["p2"].attachments[f"{number}.txt"] = b"x"
    for with_context in (False, True):
        wiki.links_with_context = with_context
        wiki.page_max = 7
        found = await opened(source(wiki))
        assert {one.id for one in found.documents.values() if one.fields["type"] == "page"} == {
            one.id for one in wiki.contents.values() if one.type == "page"
        }
        assert len([one for one in found.documents if one.startswith("att-")]) == 33


async def test_a_listing_goes_on_from_each_of_its_checkpoints(wiki: ConfluenceDouble) -> None:
    wiki.page_max = 2
    one = source(wiki, "DOC")
    async with one.session():
        found = await listed(one)
        ids = list(found.documents)
        assert len(found.checkpoints) >= 4
        for partition, value in found.checkpoints:
            rest = await resumed(one, partition, value)
            assert rest
            assert rest == ids[-len(rest) :]


async def resumed(one: Confluence, partition: Partition, value: Any) -> list[str]:
    rest: list[str] = []
    async with aclosing(one.documents(partition, value)) as pages:
        async for page in pages:
            rest += [item.id for item in page if isinstance(item, Document)] if isinstance(page, list) else []
    return rest


async def test_a_checkpoint_that_has_expired_begins_the_listing_anew(cloud: ConfluenceDouble) -> None:
    cloud.page_max = 3
    one = source(cloud, "DOC")
    async with one.session():
        found = await listed(one)
        partition, value = found.checkpoints[-1]
        asked = len(cloud.asked)

        def expire_once(request: httpx.Request) -> None:
            cloud.cursors_expired = len(cloud.asked) <= asked + 2

        cloud.before = expire_once
        rest = await resumed(one, partition, value)
    assert [one for one in rest if one.startswith("p")] == [f"p{number}" for number in range(1, 8)]


async def test_macros_lose_their_markup_and_keep_their_code(cloud: ConfluenceDouble) -> None:
    cloud.contents["o1"].body = (
        '<h1>Head</h1><p>one &amp; <b>two</b></p><ac:structured-macro ac:name="code"><ac:plain-text-body>'
        "<![CDATA[if a < b && c: <go>]]></ac:plain-text-body></ac:structured-macro><style>p {}</style><p>end</p>"
    )
    found = await opened(source(cloud, "OPS"))
    assert found.documents["o1"].fields["body"] == "Head\none &\ntwo\nif a < b && c: <go>\nend"


async def test_a_large_body_is_turned_into_text_beside_the_event_loop(cloud: ConfluenceDouble) -> None:
    cloud.contents["o1"].body = "<p>word</p>" * 20_000
    found = await opened(source(cloud, "OPS"))
    assert found.documents["o1"].fields["body"].count("word") == 20_000


# What cannot be read


@pytest.mark.parametrize("omitted", ["body.storage"])
async def test_a_page_without_its_body_is_no_empty_page(cloud: ConfluenceDouble, omitted: str) -> None:
    cloud.omits.add(omitted)
    found = await opened(source(cloud, "OPS"))
    assert "o1" not in found.documents
    assert [(one.scope, one.document_id) for one in found.failures] == [("item", "o1")]


@pytest.mark.parametrize("answer", [refusal(403), refusal(404), refusal(400)])
async def test_attachments_that_cannot_be_listed_are_a_failure(cloud: ConfluenceDouble, answer: httpx.Response) -> None:
    cloud.fail("content/p2/child/attachment", answer)
    found = await opened(source(cloud, "DOC"))
    assert "p2" in found.documents
    assert [(one.scope, one.what) for one in found.failures] == [("container", "the attachments of Title of p2")]


async def test_comments_and_labels_that_cannot_be_listed_are_failures(cloud: ConfluenceDouble) -> None:
    cloud.fail("content/p3/child/comment", refusal(403))
    cloud.fail("content/p3/label", refusal(403))
    found = await opened(source(cloud, "DOC", index_comments=True, index_labels=True))
    assert {(one.scope, one.what) for one in found.failures} == {
        ("container", "the comments of Title of p3"),
        ("item", "Title of p3"),
    }


async def test_children_that_are_not_announced_are_asked_for(cloud: ConfluenceDouble) -> None:
    cloud.omits.add("children.attachment")
    found = await opened(source(cloud, "DOC"))
    assert len([one for one in found.documents if one.startswith("att-")]) == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusal(401), CredentialsError),
        (refusal(403), PermissionDenied),
        (refusal(400), UnexpectedAnswer),
        (refusal(500), Transient),
        (refusal(502), Transient),
        (refusal(503), Transient),
        (refusal(504), Transient),
        (refusal(429), Throttled),
        (httpx.ReadTimeout("slow"), Transient),
        (httpx.Response(200, json={"_links": {}}), UnexpectedAnswer),
        (httpx.Response(200, text='{"results": [{"id"'), UnexpectedAnswer),
        (httpx.Response(200, text="<html>Log in</html>"), UnexpectedAnswer),
    ],
)
async def test_a_listing_that_breaks_off_raises(
    wiki: ConfluenceDouble,
    answer: httpx.Response | Exception,
    error: type[SourceError],
    autojump_clock: MockClock,
) -> None:
    wiki.page_max = 2
    spoiled = [0]

    def spoil(request: httpx.Request) -> None:
        if "type=page" in str(request.url.params.get("cql")):
            spoiled[0] += 1
            if spoiled[0] == 2:
                wiki.fail("content/search", answer, times=100)

    wiki.before = spoil
    with pytest.raises(error):
        await opened(source(wiki, "DOC"))
    assert spoiled[0] >= 2


async def test_a_body_that_is_cut_raises(cloud: ConfluenceDouble) -> None:
    cloud.fail("content/search", httpx.Response(200, stream=Cut(b'{"results": [')))
    with pytest.raises(Transient):
        await opened(source(cloud, "DOC"))


async def test_a_limit_is_waited_for_as_long_as_confluence_says(
    wiki: ConfluenceDouble, autojump_clock: MockClock
) -> None:
    wiki.fail("content/search", refusal(429, **{"retry-after": "37"}))
    started = trio.current_time()
    found = await opened(source(wiki, "DOC"))
    assert len(found.documents) >= 12
    assert 37 <= trio.current_time() - started < 45


async def test_errors_of_the_server_are_tried_again(wiki: ConfluenceDouble, autojump_clock: MockClock) -> None:
    for status in (500, 502, 503):
        wiki.fail("content/search", refusal(status))
    assert "p7" in (await opened(source(wiki, "DOC"))).documents


async def test_no_retries_are_none(wiki: ConfluenceDouble) -> None:
    wiki.fail("content/search", refusal(502))
    with pytest.raises(Transient):
        await opened(source(wiki, "DOC", retry_count=0))


async def test_a_link_to_another_host_is_not_followed(cloud: ConfluenceDouble) -> None:
    link = {"results": [], "_links": {"next": "https://evil.example/rest/api/space?start=1"}}
    cloud.fail("rest/api/space", httpx.Response(200, json=link))
    with pytest.raises(UnexpectedAnswer, match="another host"):
        await opened(source(cloud))
    assert not [one for one in cloud.asked if one.url.host == "evil.example"]


async def test_a_link_that_leads_back_raises(cloud: ConfluenceDouble) -> None:
    def back(request: httpx.Request) -> None:
        if "cursor" in request.url.params:
            link = {"results": [], "_links": {"next": str(request.url.raw_path.decode())}}
            cloud.fail("cursor=", httpx.Response(200, json=link))

    cloud.page_max = 2
    cloud.before = back
    with pytest.raises(RepeatedPage):
        await opened(source(cloud, "DOC"))


# Changes while listing


@pytest.mark.parametrize("removed", [{"p1"}, {"p1", "p2"}])
async def test_pages_deleted_while_listing_hide_no_other(wiki: ConfluenceDouble, removed: set[str]) -> None:
    for one in wiki.contents.values():
        one.parent = None
    wiki.page_max = 2

    def delete(request: httpx.Request) -> None:
        if "type=page" in str(request.url.params.get("cql")) and ("start" in request.url.params):
            for one in removed:
                wiki.contents.pop(one, None)

    wiki.before = delete
    found = await opened(source(wiki, "DOC"))
    assert {f"p{number}" for number in range(3, 8)} <= set(found.documents)
    assert not removed & set(wiki.contents)


async def test_a_listing_that_never_holds_still_raises(server: ConfluenceDouble) -> None:
    server.page_max = 2
    for one in server.contents.values():
        one.parent = None
    for number in range(20, 60):
        server.content(f"p{number}", "DOC")

    def delete(request: httpx.Request) -> None:
        if "type=page" in str(request.url.params.get("cql")) and "start" in request.url.params:
            server.contents.pop(next(one.id for one in server.contents.values() if one.id.startswith("p")))

    server.before = delete
    with pytest.raises(Transient, match="changes faster"):
        await opened(source(server, "DOC"))


async def test_a_space_taken_away_while_listing_raises(wiki: ConfluenceDouble) -> None:
    def hide(request: httpx.Request) -> None:
        if "type=page" in str(request.url.params.get("cql")):
            wiki.spaces["DOC"].is_hidden = True

    wiki.before = hide
    with pytest.raises(NotFound, match="DOC"):
        await opened(source(wiki, "DOC"))


async def test_a_space_that_is_not_shown_raises_and_the_others_are_listed(wiki: ConfluenceDouble) -> None:
    wiki.spaces["DOC"].is_hidden = True
    one = source(wiki, "DOC", "OPS")
    async with one.session():
        with pytest.raises(ConfigurationError, match=r"no spaces DOC.*It shows OPS"):
            await one.validate()
        with pytest.raises(NotFound, match="no space 'DOC'"):
            await resumed(one, Partition("space/DOC", {"key": "DOC"}), None)
        assert await resumed(one, Partition("space/OPS", {"key": "OPS"}), None)


async def test_a_login_that_expires_never_looks_like_a_small_wiki(wiki: ConfluenceDouble) -> None:
    wiki.lets_nobodies_in = True
    wiki.spaces["DOC"].anonymous = True

    def expire(request: httpx.Request) -> None:
        wiki.login_expired = "content/search" in str(request.url) or wiki.login_expired

    wiki.before = expire
    with pytest.raises(CredentialsError, match="not logged in"):
        await opened(source(wiki, "DOC"))


async def test_a_login_that_expires_without_a_word_is_noticed_at_the_end(
    wiki: ConfluenceDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    wiki.lets_nobodies_in = True
    wiki.spaces["DOC"].anonymous = True
    monkeypatch.setattr(httpx.Headers, "__setitem__", lambda *_: None)
    wiki.login_expired = True
    with pytest.raises(CredentialsError, match="not logged in"):
        await opened(source(wiki, "DOC"))


# Logins


async def test_wrong_credentials_are_refused(wiki: ConfluenceDouble) -> None:
    one = source(wiki, secret="wrong")
    async with one.session():
        for call in (one.ping, one.validate):
            with pytest.raises(CredentialsError):
                await call()
            wiki.fail("rest/api/space", refusal(403))
            with pytest.raises(CredentialsError, match="refuses us"):
                await call()


async def test_a_personal_access_token_serves_a_data_center(monkeypatch: pytest.MonkeyPatch) -> None:
    double = filled("confluence_data_center")
    stood_in(monkeypatch, double)
    settings = {"data_center_auth_method": "personal_access_token", "data_center_personal_access_token": SECRET}
    found = await opened(source(double, secret="unused", **settings))
    assert "p1" in found.documents
    assert {one.headers["authorization"] for one in double.asked} == {f"Bearer {SECRET}"}


async def test_a_certificate_that_is_none_is_named(cloud: ConfluenceDouble) -> None:
    one = source(cloud, ssl_enabled=True, ssl_ca="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")
    with pytest.raises(ConfigurationError, match="no PEM certificate"):
        async with one.session():
            await one.ping()


async def test_a_login_page_is_no_attachment(server: ConfluenceDouble) -> None:
    one = source(server, "DOC")
    async with one.session():
        found = await listed(one)
        server.fail("download/", httpx.Response(302, headers={"location": "/login.action?os_destination=x"}))
        with pytest.raises(CredentialsError, match="log in"):
            await content_of(one, found.documents["att-p2-notes.txt"])


async def test_downloads_from_another_host_carry_no_credentials(cloud: ConfluenceDouble) -> None:
    one = source(cloud, "DOC")
    async with one.session():
        found = await listed(one)
        assert await content_of(one, found.documents["att-p2-notes.txt"]) == b"the notes"
        media = [asked for asked in cloud.asked if str(asked.url).startswith(MEDIA)]
        assert len(media) == 1
        cloud.fail("download/", httpx.Response(302, headers={"location": "/wiki/download/attachments/1/x"}), times=9)
        with pytest.raises(UnexpectedAnswer, match="from one address to the next"):
            await content_of(one, found.documents["att-p2-notes.txt"])


async def test_a_download_that_is_cut_raises(server: ConfluenceDouble) -> None:
    one = source(server, "DOC")
    async with one.session():
        found = await listed(one)
        server.fail("download/", httpx.Response(200, stream=Cut(b"the n")))
        with pytest.raises(Transient):
            await content_of(one, found.documents["att-p2-notes.txt"])
        server.fail("download/", refusal(404))
        with pytest.raises(NotFound):
            await content_of(one, found.documents["att-p2-notes.txt"])


# Configuration


def test_the_configuration_has_the_fields_of_the_reference() -> None:
    schema = schema_of(ConfluenceConfig)
    assert list(schema)[:18] == [
        "data_source",
        "username",
        "password",
        "data_center_auth_method",
        "data_center_username",
        "data_center_password",
        "data_center_personal_access_token",
        "account_email",
        "api_token",
        "confluence_url",
        "spaces",
        "index_labels",
        "ssl_enabled",
        "ssl_ca",
        "retry_count",
        "concurrent_downloads",
        "use_document_level_security",
        "use_text_extraction_service",
    ]
    assert [field["order"] for field in schema.values()] == list(range(1, 21))
    assert {name for name, field in schema.items() if field["sensitive"]} == {
        "password",
        "data_center_password",
        "data_center_personal_access_token",
        "api_token",
    }
    assert schema["retry_count"]["default_value"] == 3
    assert schema["concurrent_downloads"]["default_value"] == 50
    assert schema["data_source"]["value"] == "confluence_server"
    assert schema["data_center_personal_access_token"]["depends_on"] == [
        {"field": "data_source", "value": "confluence_data_center"},
        {"field": "data_center_auth_method", "value": "personal_access_token"},
    ]


def stored(**values: Any) -> dict[str, Any]:
    schema = schema_of(ConfluenceConfig)
    for name, value in values.items():
        schema[name]["value"] = value
    return schema


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"spaces": "*, DOC"}, "beside keys"),
        ({"confluence_url": "wiki.example"}, "must be an address"),
        ({"confluence_url": "https://me:pw@wiki.example"}, "must not hold a user name"),
        ({"concurrent_downloads": 51}, "concurrent_downloads|Downloads at once"),
        ({"spaces": ""}, "spaces|Spaces"),
        ({"username": ""}, "username|User name"),
    ],
)
def test_settings_that_cannot_work_are_named(values: dict[str, Any], complaint: str) -> None:
    good = {"confluence_url": "https://wiki.example", "spaces": "*", "username": "me", "password": "x"}
    read_configuration(ConfluenceConfig, stored(**good))
    with pytest.raises(InvalidConfiguration, match=complaint):
        read_configuration(ConfluenceConfig, stored(**(good | values)))


def test_the_address_may_end_in_wiki_on_cloud() -> None:
    for url in ("https://x.example", "https://x.example/", "https://x.example/wiki", "https://x.example/wiki/"):
        config = ConfluenceConfig(data_source="confluence_cloud", confluence_url=url, spaces=["*"])
        assert (config.site_url, config.base_url) == ("https://x.example", "https://x.example/wiki")


def test_downloads_at_once_are_the_instances_own() -> None:
    config = ConfluenceConfig(confluence_url="https://x.example", spaces=["*"], concurrent_downloads=7)
    assert Confluence(config).content_concurrency == 7


# Advanced rules


@pytest.mark.parametrize(
    ("rules", "problems"),
    [
        ([], 0),
        (None, 0),
        ([{"query": "type = page"}], 0),
        ({"query": "type = page"}, 1),
        ([{"query": ""}], 1),
        ([{"query": 5}, {"question": "x"}, {"query": "type = page", "more": 1}, "x"], 4),
        ([{"query": "type = page"}, {"query": "tpye ?? page"}], 1),
    ],
)
async def test_rules_are_judged_by_form_and_by_confluence(wiki: ConfluenceDouble, rules: Any, problems: int) -> None:
    one = source(wiki)
    async with one.session():
        assert len(await one.validate_rules(rules)) == problems


async def test_what_rules_find_becomes_documents(wiki: ConfluenceDouble) -> None:
    wiki.page_max = 3
    rules = [{"query": "space = DOC and type = page"}, {"query": "space in ('DOC')"}, {"query": "type = space"}]
    found = await opened(source(wiki), [*rules, {"query": "type = user"}])
    assert found.partitions == ["advanced_rules"]
    assert not found.failures
    spaces = {str(wiki.spaces[key].id) for key in ("DOC", "OPS")}
    attachments = {f"att-p2-{name}" for name in wiki.contents["p2"].attachments}
    assert set(found.documents) == {f"p{n}" for n in range(1, 8)} | {"b1"} | attachments | spaces
    assert found.documents["p3"].fields == {
        "type": "page",
        "title": "Title of p3",
        "space": "Space DOC",
        "body": "Body of p3",
        "url": f"{wiki.base}/pages/p3",
        "author": "ann",
        "createdDate": AT,
    }
    space = found.documents[str(wiki.spaces["DOC"].id)].fields
    assert (space["type"], space["title"], space["body"]) == ("space", "Space DOC", "About DOC")
    note = found.documents["att-p2-notes.txt"]
    assert (note.fields["page"], note.fields["size"], note.timestamp) == ("Title of p2", 9, AT)
    assert note.content is not None


async def test_a_search_without_links_is_counted_to_its_end(wiki: ConfluenceDouble) -> None:
    if wiki.is_cloud:
        return
    wiki.links_are_missing = True
    wiki.page_max = 2
    found = await opened(source(wiki), [{"query": "type = page"}])
    assert len(found.documents) == 8


async def test_a_hit_without_body_is_read_on_its_own(cloud: ConfluenceDouble) -> None:
    cloud.omits.add("container")
    real = cloud.before

    def omit(request: httpx.Request) -> None:
        cloud.omits.discard("body.storage")
        if request.url.path.endswith("/rest/api/search"):
            cloud.omits.add("body.storage")

    assert real is None
    cloud.before = omit
    found = await opened(source(cloud), [{"query": "space = DOC"}])
    assert found.documents["p3"].fields["body"] == "Body of p3"
    assert found.documents["att-p2-notes.txt"].fields["page"] == "Title of p2"


async def test_a_query_is_sent_as_it_is(cloud: ConfluenceDouble) -> None:
    query = 'title ~ "C# & co + 100%" and type = page'
    await opened(source(cloud), [{"query": query}])
    assert [one.url.params["cql"] for one in cloud.asked if one.url.path.endswith("/search")] == [query]


async def test_a_query_that_is_refused_is_no_empty_result(wiki: ConfluenceDouble) -> None:
    with pytest.raises(UnexpectedAnswer, match="400"):
        await opened(source(wiki), [{"query": "type = page"}, {"query": "nonsense ?"}])


class TestConfluenceConformance(SourceConformance):
    @pytest.fixture(params=[*EDITIONS, "rules"])
    def subject(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Subject:
        edition: Edition = "confluence_cloud" if request.param == "rules" else request.param
        double = filled(edition)
        double.page_max = 3
        stood_in(monkeypatch, double)

        def cut() -> None:
            double.faults[:] = [("", httpx.ConnectError("gone"), 1000)]

        def opened(**more: Any) -> Callable[[], Confluence]:
            return lambda: source(double, index_comments=True, use_document_level_security=True, retry_count=0, **more)

        return Subject(
            opened(),
            refused=opened(secret="wr0ng-value"),
            secrets=(SECRET, "wr0ng-value"),
            cut=cut,
            rules=[{"query": "space = DOC"}] if request.param == "rules" else None,
        )

"""A Confluence that refuses what Confluence refuses: three editions, logins, CQL, pages of listings, restrictions, people, downloads.

It also says, by the plain definition, what each person would be shown: nothing of the source's own reasoning is used for that.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal
from urllib.parse import quote, unquote

import attrs
import httpx

Edition = Literal["confluence_cloud", "confluence_server", "confluence_data_center"]
AT = "2026-01-02T03:04:05.000Z"
SECRET = "s3cret-value"
MEDIA = "https://media.example"


@attrs.define
class Person:
    name: str
    groups: set[str] = attrs.field(factory=set)
    active: bool = True
    account_type: str = "atlassian"

    @property
    def display(self) -> str:
        return f"{self.name.title()} Example"


@attrs.define
class Space:
    key: str
    users: set[str] = attrs.field(factory=set)
    groups: set[str] = attrs.field(factory=set)
    anonymous: bool = False
    editors: set[str] = attrs.field(factory=set)
    """Groups with other rights than to view."""
    is_hidden: bool = False

    @property
    def id(self) -> int:
        return 1000 + sum(ord(letter) * 7**place for place, letter in enumerate(self.key))


@attrs.define
class Content:
    id: str
    space: str
    type: str = "page"
    parent: str | None = None
    body: str | None = None
    users: set[str] = attrs.field(factory=set)
    groups: set[str] = attrs.field(factory=set)
    attachments: dict[str, bytes] = attrs.field(factory=dict)
    comments: int = 0
    labels: list[str] = attrs.field(factory=list)
    when: str = AT

    @property
    def title(self) -> str:
        return f"Title of {self.id}"


class Cut(httpx.AsyncByteStream):
    """A body that breaks off."""

    def __init__(self, start: bytes) -> None:
        self._start = start

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._start
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")


def refusal(status: int, message: str = "no", **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"statusCode": status, "message": message}, headers=headers)


@attrs.define
class ConfluenceDouble:
    edition: Edition = "confluence_cloud"
    context: str = ""
    people: dict[str, Person] = attrs.field(factory=dict)
    spaces: dict[str, Space] = attrs.field(factory=dict)
    contents: dict[str, Content] = attrs.field(factory=dict)
    asked: list[httpx.Request] = attrs.field(factory=list)
    faults: list[tuple[str, httpx.Response | Exception, int]] = attrs.field(factory=list)
    """What the address has to hold, what is answered instead of the right thing, and how many times it still is."""
    before: Callable[[httpx.Request], None] | None = None
    login_expired: bool = False
    """Whoever sends credentials is taken for nobody."""
    lets_nobodies_in: bool = False
    """The site as a whole is open to people who are not logged in."""
    hides_group_grants: bool = False
    has_extender: bool = True
    has_space_permissions: bool = False
    links_with_context: bool = False
    links_are_missing: bool = False
    """As the search of Data Center: no link to the next page."""
    page_max: int = 1000
    """Pages hold at most so many, whatever is asked for."""
    group_lists_max: int = 200
    restriction_lists_max: int = 100
    cursors_expired: bool = False
    cursors: dict[str, frozenset[str]] = attrs.field(factory=dict)
    """What was given before each of them."""
    omits: set[str] = attrs.field(factory=set)
    """Expansions that are ignored."""

    # What there is

    def person(self, name: str, *groups: str, **more: Any) -> Person:
        self.people[name] = Person(name, {"everyone", *groups}, **more)
        return self.people[name]

    def space(self, key: str, **more: Any) -> Space:
        self.spaces[key] = Space(key, **more)
        return self.spaces[key]

    def content(self, content_id: str, space: str, **more: Any) -> Content:
        self.contents[content_id] = Content(content_id, space, **more)
        return self.contents[content_id]

    # What a person is shown

    def shown_to(self, name: str) -> set[str]:
        """The ids of all documents that Confluence shows a person."""
        person = self.people[name]
        seen: set[str] = set()
        for space in self.spaces.values():
            if not self._may_view(person, space):
                continue
            seen.add(str(space.id))
            for content in self.contents.values():
                if content.space == space.key and self._is_let_through(person, content):
                    seen |= {content.id, *(f"att-{content.id}-{one}" for one in content.attachments)}
                    seen |= {f"com-{content.id}-{number}" for number in range(content.comments)}
        return seen

    def _may_view(self, person: Person, space: Space) -> bool:
        is_public = space.anonymous and self.lets_nobodies_in
        return is_public or person.name in space.users or bool(person.groups & space.groups)

    def _is_let_through(self, person: Person, content: Content | None) -> bool:
        while content is not None:
            is_restricted = bool(content.users or content.groups)
            if is_restricted and person.name not in content.users and not person.groups & content.groups:
                return False
            content = self.contents.get(content.parent) if content.parent else None
        return True

    # The wire

    @property
    def is_cloud(self) -> bool:
        return self.edition == "confluence_cloud"

    @property
    def site(self) -> str:
        return "https://wiki.example" + ("" if self.is_cloud else self.context)

    @property
    def base(self) -> str:
        return f"{self.site}/wiki" if self.is_cloud else self.site

    def fail(self, where: str, answer: httpx.Response | Exception, times: int = 1) -> None:
        self.faults.append((where, answer, times))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        url = str(request.url)
        if url.startswith(MEDIA):
            assert "authorization" not in request.headers, "credentials went to another host"
            return self._file(unquote(request.url.path).removeprefix("/"))
        if self.before is not None:
            self.before(request)
        for number, (where, answer, times) in enumerate(self.faults):
            if where in unquote(url):
                self.faults[number : number + 1] = [(where, answer, times - 1)] if times > 1 else []
                if isinstance(answer, Exception):
                    raise answer
                return answer
        is_known = self._is_known(request)
        if is_known is None:
            return refusal(401, "Basic authentication failed")
        answer = self._answer(request, is_known)
        if self.login_expired and "authorization" in request.headers:
            answer.headers["x-seraph-loginreason"] = "AUTHENTICATED_FAILED"
        return answer

    def _is_known(self, request: httpx.Request) -> bool | None:
        """True for us, False for nobody in particular, None for wrong credentials."""
        header = request.headers.get("authorization")
        if header is None:
            return False
        if self.login_expired:
            return False
        good = [f"Basic {base64.b64encode(f'me:{SECRET}'.encode()).decode()}"]
        good += [f"Bearer {SECRET}"] if self.edition == "confluence_data_center" else []
        return True if header in good else None

    def _answer(self, request: httpx.Request, is_known: bool) -> httpx.Response:
        path = request.url.raw_path.decode().partition("?")[0]
        jira = f"{self.context}/rest/api/3/" if self.is_cloud else None
        params = dict(request.url.params)
        if jira and path.startswith(jira):
            return self._jira(path.removeprefix(jira), params) if is_known else refusal(403)
        root = "/wiki/" if self.is_cloud else f"{self.context}/"
        assert path.startswith(root), f"{path} is not below {root}"
        parts = [unquote(part) for part in path.removeprefix(root).split("/")]
        match parts:
            case ["rest", "api", "user", "current"]:
                return httpx.Response(200, json={"type": "known" if is_known else "anonymous"})
            case ["rest", "api", "space"]:
                return self._spaces(request, params, is_known)
            case ["rest", "api", "space", key]:
                return self._space(key, params, is_known)
            case ["rest", "api", "space", key, "permissions"] if self.has_space_permissions and is_known:
                return self._space_permissions(self.spaces[key])
            case ["rest", "api", "content", "search"]:
                return self._content_search(request, params, is_known)
            case ["rest", "api", "search"]:
                return self._search(request, params, is_known)
            case ["rest", "api", "content", content_id, *rest] if is_known:
                return self._content(request, content_id, rest, params)
            case ["download", "attachments", _, name] if is_known:
                if self.is_cloud:
                    return httpx.Response(302, headers={"location": f"{MEDIA}/{quote(name)}?token=signed"})
                return self._file(name)
            case ["api", "v2", "spaces", space_id, "permissions"] if self.is_cloud and is_known:
                return self._assigned(request, space_id, params)
            case ["rest", "api", "group", group, "membersByGroupId"] if self.is_cloud and is_known:
                return self._members(group.removeprefix("id-"), params)
            case ["rest", "api", "group", group, "member"] if not self.is_cloud and is_known:
                return self._members(group, params)
            case ["rest", "api", "user", "memberof"] if not self.is_cloud and is_known:
                return self._memberships(params)
            case ["rest", "api", "user", "list"] if self.edition == "confluence_data_center" and is_known:
                return self._listed([self._user(one) for one in self.people.values()], params, 200)
            case ["rest", "api", "user"] if not self.is_cloud and is_known:
                return httpx.Response(200, json=self._user(self.people[params["key"].removeprefix("key-")]))
            case ["rest", "extender", "1.0", *rest] if self.has_extender and not self.is_cloud and is_known:
                return self._extender(rest, params)
        return refusal(404 if is_known or self.lets_nobodies_in else 401, "null for uri: " + path)

    # Spaces

    def _is_visible(self, space: Space, is_known: bool) -> bool:
        return not space.is_hidden and (is_known or (space.anonymous and self.lets_nobodies_in))

    def _spaces(self, request: httpx.Request, params: dict[str, str], is_known: bool) -> httpx.Response:
        if not is_known and not self.lets_nobodies_in:
            return refusal(401)
        if int(params.get("limit", 25)) > 1000:
            return refusal(400, "limit must not be above 1000")
        shown = [one for one in self.spaces.values() if self._is_visible(one, is_known)]
        return self._page(request, [self._space_json(one, params) for one in shown], params)

    def _space(self, key: str, params: dict[str, str], is_known: bool) -> httpx.Response:
        if not self.is_cloud and "permissions" in params.get("expand", ""):
            return refusal(500, "could not initialize proxy")
        space = self.spaces.get(key)
        if space is None or not self._is_visible(space, is_known):
            return refusal(404, f"No space with key : {key}")
        return httpx.Response(200, json=self._space_json(space, params))

    def _space_json(self, space: Space, params: dict[str, str]) -> dict[str, Any]:
        expand = params.get("expand", "").split(",")
        found: dict[str, Any] = {
            "id": space.id,
            "key": space.key,
            "name": f"Space {space.key}",
            "_links": {"webui": f"/spaces/{space.key}"},
        }
        if "permissions" in expand:
            found["permissions"] = self._permissions(space)
        if "history" in expand:
            found["history"] = {"createdDate": AT, "createdBy": self._user(Person("ann"))}
        return found

    def _permissions(self, space: Space) -> list[dict[str, Any]]:
        def entry(operation: str, **subjects: Any) -> dict[str, Any]:
            lists = {kind: {"results": [one], "size": 1} for kind, one in subjects.items()}
            return {
                "operation": {"operation": operation, "targetType": "space" if operation != "create" else "page"},
                "subjects": lists,
                "anonymousAccess": False,
                "unlicensedAccess": False,
            }

        entries = [entry("read", user=self._user(self.people[name])) for name in sorted(space.users)]
        for operation, groups in (("read", space.groups), ("administer", space.editors), ("create", space.editors)):
            for group in sorted(groups):
                one = entry(operation, group={"type": "group", "id": f"id-{group}", "name": group})
                if self.hides_group_grants:
                    del one["subjects"]
                entries.append(one)
        if space.anonymous:
            entries.append({**entry("read"), "anonymousAccess": True, "subjects": {}})
        return entries

    def _assigned(self, request: httpx.Request, space_id: str, params: dict[str, str]) -> httpx.Response:
        if int(params["limit"]) > 250:
            return refusal(400, "Provided value for 'limit' must be at most 250")
        space = next(one for one in self.spaces.values() if str(one.id) == space_id)
        who = [("group", f"id-{one}", "read") for one in sorted(space.groups)]
        who += [("user", f"acc-{one}", "read") for one in sorted(space.users)]
        who += [("group", f"id-{one}", "delete") for one in sorted(space.editors)]
        entries = [
            {
                "id": str(number),
                "principal": {"type": kind, "id": name},
                "operation": {"key": key, "targetType": "space"},
            }
            for number, (kind, name, key) in enumerate(who)
        ]
        return self._page(request, entries, params, prefix="/wiki")

    def _space_permissions(self, space: Space) -> httpx.Response:
        who: list[dict[str, Any]] = [{"type": "group", "name": one} for one in sorted(space.groups)]
        who += [{"type": "user", "userKey": f"key-{one}"} for one in sorted(space.users)]
        who += [{"type": "anonymous"}] if space.anonymous else []
        read = [{"operation": {"targetType": "space", "operationKey": "read"}, "subject": one} for one in who]
        other = [
            {
                "operation": {"targetType": "space", "operationKey": "administer"},
                "subject": {"type": "group", "name": one},
            }
            for one in sorted(space.editors)
        ]
        return httpx.Response(200, json=read + other)

    # Contents

    def _content_search(self, request: httpx.Request, params: dict[str, str], is_known: bool) -> httpx.Response:
        if int(params.get("limit", 25)) > 50 and "body" in params.get("expand", ""):
            return refusal(400, "limit must not be above 50 with a body")
        if not self.is_cloud and "permissions" in params.get("expand", ""):
            return refusal(500, "could not initialize proxy")
        found = self._by_cql(params.get("cql", ""), is_known)
        if found is None:
            return refusal(400, f"Could not parse cql : {params.get('cql')}")
        return self._page(request, [self._json(one, params) for one in found if isinstance(one, Content)], params)

    def _search(self, request: httpx.Request, params: dict[str, str], is_known: bool) -> httpx.Response:
        found = self._by_cql(params.get("cql", ""), is_known)
        if found is None:
            return refusal(400, f"Could not parse cql : {params.get('cql')}")
        nested = {**params, "expand": params.get("expand", "").replace("content.", "").replace("space.", "")}
        hits: list[dict[str, Any]] = []
        for one in found:
            if isinstance(one, Person):
                hits.append({"user": self._user(one), "title": one.display, "entityType": "user", "url": "/x"})
            elif isinstance(one, Space):
                entity = self._space_json(one, nested) | {"description": {"plain": {"value": f"About {one.key}"}}}
                hits.append(self._hit("space", entity, f"Space @@@hl@@@{one.key}@@@endhl@@@", f"/spaces/{one.key}"))
            elif isinstance(one, Content):
                hits.append(self._hit("content", self._json(one, nested), one.title, f"/pages/{one.id}"))
            else:
                content, name = one
                entity = self._attachment(content, name, nested)
                if "container" not in self.omits:
                    entity["container"] = {"id": content.id, "type": content.type, "title": content.title}
                hits.append(self._hit("content", entity, name, f"/att/{name}"))
        return self._page(request, hits, params)

    def _hit(self, kind: str, entity: dict[str, Any], title: str, url: str) -> dict[str, Any]:
        return {kind: entity, "title": title, "url": url, "lastModified": AT, "excerpt": "…", "entityType": kind}

    def _by_cql(self, cql: str, is_known: bool) -> list[Any] | None:
        """Find contents, attachments, spaces and people; None for what is no CQL that is understood here."""
        query, *order = re.split(r"\s+order\s+by\s+", cql, flags=re.IGNORECASE)
        if order and not re.fullmatch(r"(created|lastmodified)( asc| desc)?", order[0]):
            return None
        spaces, types, title = None, ["page", "blogpost", "attachment"], None
        for clause in re.split(r"\s+and\s+", query.strip(), flags=re.IGNORECASE):
            value = r"(?:'(?P<one>(?:[^'\\]|\\.)*)'|(?P<bare>[\w~-]+))"
            if found := re.fullmatch(rf"space\s*(?:=\s*|in\s*\(){value}\)?", clause, re.IGNORECASE):
                spaces = [(found["one"] or found["bare"]).replace("\\'", "'")]
            elif found := re.fullmatch(r"type\s*=\s*(\w+)", clause, re.IGNORECASE):
                types = [found[1]]
            elif found := re.fullmatch(r'title\s*~\s*"([^"]*)"', clause, re.IGNORECASE):
                title = found[1]
            else:
                return None
        shown = {key for key, one in self.spaces.items() if self._is_visible(one, is_known)}
        if types == ["user"]:
            return list(self.people.values())
        if types == ["space"]:
            return [one for key, one in self.spaces.items() if key in shown and (spaces is None or key in spaces)]
        hits: list[Any] = []
        for content in self.contents.values():
            if content.space not in shown or (spaces is not None and content.space not in spaces):
                continue
            if not is_known and (content.users or content.groups):
                continue
            if content.type in types and (title is None or title in content.title):
                hits.append(content)
            if "attachment" in types and title is None:
                hits += [(content, name) for name in content.attachments]
        return hits

    def _json(self, content: Content, params: dict[str, str]) -> dict[str, Any]:
        expand = {one for one in params.get("expand", "").split(",") if one not in self.omits}
        found: dict[str, Any] = {
            "id": content.id,
            "type": content.type,
            "title": content.title,
            "_links": {"webui": f"/pages/{content.id}"},
            "history": {"createdDate": AT, "createdBy": self._user(Person("ann"))},
        }
        if "history.lastUpdated" in expand:
            found["history"]["lastUpdated"] = {"when": content.when}
        if "space" in expand:
            found["space"] = self._space_json(self.spaces[content.space], {})
        if "body.storage" in expand:
            body = f"<p>Body of {content.id}</p>" if content.body is None else content.body
            found["body"] = {"storage": {"value": body, "representation": "storage"}}
        if "ancestors" in expand:
            found["ancestors"] = self._ancestors(content)
        found["children"] = {}
        for kind, size in (("attachment", len(content.attachments)), ("comment", content.comments)):
            if f"children.{kind}" in expand:
                found["children"][kind] = {"results": [], "size": size}
        if "metadata.labels" in expand:
            labels = [{"name": one} for one in content.labels[:2]]
            found["metadata"] = {"labels": {"results": labels, "start": 0, "limit": 2, "size": len(labels)}}
        if any(one.startswith("restrictions.read") for one in expand):
            found["restrictions"] = {"read": {"restrictions": self._restrictions(content, 0)}}
        return found

    def _ancestors(self, content: Content) -> list[dict[str, Any]]:
        above: list[dict[str, Any]] = []
        at = content.parent
        while at is not None:
            above.insert(0, {"id": at, "title": self.contents[at].title})
            at = self.contents[at].parent
        return above

    def _restrictions(self, content: Content, start: int) -> dict[str, Any]:
        end = start + self.restriction_lists_max
        users = [self._user(self.people[one]) for one in sorted(content.users)][start:end]
        groups = [{"type": "group", "name": one, "id": f"id-{one}"} for one in sorted(content.groups)][start:end]
        return {
            kind: {"results": results, "start": start, "limit": self.restriction_lists_max, "size": len(results)}
            for kind, results in (("user", users), ("group", groups))
        }

    def _content(
        self, request: httpx.Request, content_id: str, rest: list[str], params: dict[str, str]
    ) -> httpx.Response:
        content = self.contents.get(content_id)
        if content is None:
            for one in self.contents.values():
                for name in one.attachments:
                    if content_id == f"att-{one.id}-{name}" and not rest:
                        container = {"id": one.id, "type": one.type, "title": one.title}
                        return httpx.Response(200, json=self._attachment(one, name, params) | {"container": container})
            return refusal(404, f"No content found with id: {content_id}")
        match rest:
            case []:
                return httpx.Response(200, json=self._json(content, params))
            case ["child", "attachment"]:
                found = [self._attachment(content, name, params) for name in content.attachments]
                return self._page(request, found, params)
            case ["child", "comment"] if params.get("depth") == "all":
                return self._page(request, [self._comment(content, n) for n in range(content.comments)], params)
            case ["label"]:
                return self._page(request, [{"name": one} for one in content.labels], params)
            case ["restriction", "byOperation", "read"]:
                start, limit = int(params.get("start", 0)), int(params.get("limit", 100))
                if limit > 200:
                    return refusal(400, "limit must not be above 200")
                lists = self._restrictions(content, start)
                return httpx.Response(200, json={"operation": "read", "restrictions": lists})
        return refusal(404)

    def _attachment(self, content: Content, name: str, params: dict[str, str]) -> dict[str, Any]:
        return {
            "id": f"att-{content.id}-{name}",
            "type": "attachment",
            "title": name,
            "version": {"when": content.when, "number": 3},
            "history": {"createdDate": AT, "createdBy": self._user(Person("ann"))},
            "extensions": {"fileSize": len(content.attachments[name]), "mediaType": "text/plain"},
            "space": {"key": content.space, "name": f"Space {content.space}"},
            "_links": {
                "webui": f"/att/{name}",
                "download": f"/download/attachments/{content.id}/{quote(name)}?version=3",
            },
        }

    def _comment(self, content: Content, number: int) -> dict[str, Any]:
        found: dict[str, Any] = {
            "id": f"com-{content.id}-{number}",
            "type": "comment",
            "title": f"Re: {content.title}",
            "version": {"when": AT},
            "history": {"createdDate": AT, "createdBy": self._user(Person("bob"))},
            "_links": {"webui": f"/pages/{content.id}?focusedCommentId={number}"},
        }
        if "body.storage" not in self.omits:
            found["body"] = {"storage": {"value": f"<p>comment {number}</p>"}}
        return found

    def _file(self, name: str) -> httpx.Response:
        for content in self.contents.values():
            if name in content.attachments:
                return httpx.Response(200, content=content.attachments[name])
        return refusal(404)

    # People

    def _user(self, person: Person) -> dict[str, Any]:
        if self.is_cloud:
            return {
                "type": "known",
                "accountId": f"acc-{person.name}",
                "accountType": person.account_type,
                "publicName": person.name,
                "displayName": person.display,
            }
        return {
            "type": "known",
            "username": person.name,
            "userKey": f"key-{person.name}",
            "displayName": person.display,
        }

    def _jira(self, path: str, params: dict[str, str]) -> httpx.Response:
        def described(person: Person) -> dict[str, Any]:
            account = f"acc-{person.name}"
            return {
                "self": f"{self.site}/rest/api/3/user?accountId={account}",
                "accountId": account,
                "accountType": person.account_type,
                "active": person.active,
                "displayName": person.display,
                "emailAddress": f"{person.name}@example.org",
                "locale": "en_US",
            }

        if path == "users/search":
            start, limit = int(params.get("startAt", 0)), int(params.get("maxResults", 50))
            everyone = list(self.people.values())[start : start + limit]
            return httpx.Response(200, json=[described(one) for one in everyone])
        person = self.people.get(params["accountId"].removeprefix("acc-"))
        if person is None:
            return refusal(404, "Specified user does not exist")
        groups = [{"name": one, "groupId": f"id-{one}"} for one in sorted(person.groups)]
        if path == "user/groups":
            return httpx.Response(200, json=groups)
        assert path == "user"
        found = described(person)
        if "groups" in params.get("expand", ""):
            found["groups"] = {"size": len(groups), "items": groups[: self.group_lists_max]}
            found["applicationRoles"] = {"size": 1, "items": [{"key": "confluence-software", "name": "Confluence"}]}
        return httpx.Response(200, json=found)

    def _extender(self, rest: list[str], params: dict[str, str]) -> httpx.Response:
        match rest:
            case ["permission", "space", key, "getSpacePermissionActors", "VIEWSPACE"]:
                space = self.spaces[key]
                view = {
                    "anonymousAccess": space.anonymous,
                    "users": sorted(space.users),
                    "groups": sorted(space.groups),
                }
                return httpx.Response(200, json={"key": key, "permissions": {"VIEWSPACE": view}})
            case ["user", "getUsersWithConfluenceAccess"]:
                if int(params["maxResults"]) > 1000:
                    return refusal(400, "maxResults must not be above 1000")
                start = int(params["startAt"])
                page = list(self.people.values())[start : start + min(int(params["maxResults"]), self.page_max)]
                users = [
                    {
                        "name": one.name,
                        "key": f"key-{one.name}",
                        "fullName": one.display,
                        "email": f"{one.name}@example.org",
                    }
                    for one in page
                ]
                return httpx.Response(200, json={"users": users})
        return refusal(404)

    def _members(self, group: str, params: dict[str, str]) -> httpx.Response:
        if group not in {one for person in self.people.values() for one in person.groups}:
            return refusal(404, f"No group with name {group}")
        return self._listed([self._user(one) for one in self.people.values() if group in one.groups], params, 200)

    def _memberships(self, params: dict[str, str]) -> httpx.Response:
        name = params.get("username") or params["key"].removeprefix("key-")
        groups = [{"type": "group", "name": one} for one in sorted(self.people[name].groups)]
        return self._listed(groups, params, 200)

    def _listed(self, items: list[Any], params: dict[str, str], limit_max: int) -> httpx.Response:
        start, limit = int(params.get("start", 0)), int(params.get("limit", 25))
        if limit > limit_max:
            return refusal(400, f"limit must not be above {limit_max}")
        limit = min(limit, self.page_max)
        page = items[start : start + limit]
        return httpx.Response(200, json={"results": page, "start": start, "limit": limit, "size": len(page)})

    # Pages

    def _page(
        self, request: httpx.Request, items: list[Any], params: dict[str, str], prefix: str = ""
    ) -> httpx.Response:
        limit = min(int(params.get("limit", 25)), self.page_max)
        by_cursor = self.is_cloud and ("cql" in params or prefix)
        if by_cursor and "cursor" in params:
            if self.cursors_expired:
                return refusal(400, "The provided cursor was not valid.")
            # A cursor knows what was given already, so that nothing shifts.
            given = self.cursors[params["cursor"]]
            items = [one for one in items if self._id(one) not in given]
            start = 0
        else:
            start = 0 if by_cursor else int(params.get("start", 0))
        page = items[start : start + limit]
        answer: dict[str, Any] = {"results": page, "start": start, "limit": limit, "size": len(page)}
        links: dict[str, str] = {"base": self.base}
        if "search" in request.url.path and "content" not in request.url.path:
            answer["totalSize"] = len(items)
        if start + limit < len(items) and not self.links_are_missing:
            query = {**params, "limit": str(limit), "start": str(start + limit)}
            if by_cursor:
                before = self.cursors.get(params.get("cursor", ""), frozenset())
                query["cursor"] = f"cursor{len(self.cursors)}"
                self.cursors[query["cursor"]] = before | {self._id(one) for one in page}
            path = request.url.path.removeprefix("/wiki" if self.is_cloud else self.context)
            lead = prefix or (("/wiki" if self.is_cloud else self.context) if self.links_with_context else "")
            links["next"] = f"{lead}{path}?{httpx.QueryParams(query)}"
        return httpx.Response(200, json={**answer, "_links": links})

    @staticmethod
    def _id(item: dict[str, Any]) -> str:
        entity = item.get(item["entityType"], item) if "entityType" in item else item
        return str(entity.get("id") or entity.get("name") or entity.get("accountId"))

"""From Confluence's answers to documents: what of them becomes which field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...runtime import now
from ..errors import UnexpectedAnswer
from ..source import JSON, ContentRef, Document
from .paging import address
from .settings import ConfluenceConfig
from .storage_text import plain_text

_HIGHLIGHT: Final = re.compile(r"@@@(?:end)?hl@@@")
Access = list[str] | None


def dig(value: Any, *path: str) -> Any:
    """Follow keys into an answer; None where one is missing."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def stored_body(content: Mapping[str, Any]) -> str | None:
    """The body in storage format; None if Confluence did not send it, which is not the same as an empty one."""
    value = dig(content, "body", "storage", "value")
    return value if isinstance(value, str) else None


def _stamp_now() -> str:
    return now().isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Mapper:
    """Makes documents for one Confluence. Without state."""

    def __init__(self, config: ConfluenceConfig) -> None:
        self._base = config.base_url
        self._is_cloud = config.is_cloud

    def _url(self, entity: Mapping[str, Any]) -> str | None:
        link = dig(entity, "_links", "webui")
        return address(str(link), self._base) if link else None

    def _author(self, entity: Mapping[str, Any]) -> str | None:
        person = dig(entity, "history", "createdBy") or {}
        # Only Cloud has public names; people of a server go by their user names.
        names = ("publicName", "displayName") if self._is_cloud else ("username", "displayName")
        return next((str(person[name]) for name in names if person.get(name)), None)

    def _origin(self, entity: Mapping[str, Any]) -> dict[str, JSON]:
        return {"author": self._author(entity), "createdDate": dig(entity, "history", "createdDate")}

    def space(self, space: Mapping[str, Any], access: Access) -> Document:
        fields: dict[str, JSON] = {
            "type": "Space",
            "title": space.get("name"),
            "url": self._url(space),
            "key": space.get("key"),
        }
        if self._is_cloud:
            fields |= self._origin(space)
        # A space does not tell when it changed last.
        return Document(str(space["id"]), fields, timestamp=_stamp_now(), access=access)

    def page(
        self, content: Mapping[str, Any], space_name: str | None, labels: Sequence[str] | None, access: Access
    ) -> Document:
        """Make the document of a page or blog post. Raises `UnexpectedAnswer` if its body did not come."""
        fields: dict[str, JSON] = {
            "type": content.get("type"),
            "title": content.get("title"),
            "ancestors": [{"title": one.get("title")} for one in content.get("ancestors") or ()],
            "space": dig(content, "space", "name") or space_name,
            "body": plain_text(_body(content)),
            "url": self._url(content),
            **self._origin(content),
        }
        if labels is not None:
            fields["labels"] = list(labels)
        when = dig(content, "history", "lastUpdated", "when") or dig(content, "version", "when")
        return Document(str(content["id"]), fields, timestamp=when, access=access)

    def attachment(
        self, attachment: Mapping[str, Any], parent: Mapping[str, Any], space_name: str | None, access: Access
    ) -> Document:
        size = int(dig(attachment, "extensions", "fileSize") or 0)
        fields: dict[str, JSON] = {
            "type": "attachment",
            "title": attachment.get("title"),
            "space": dig(parent, "space", "name") or space_name,
            str(parent.get("type") or "page"): parent.get("title"),
            "size": size,
            "url": self._url(attachment),
            "createdDate": dig(attachment, "history", "createdDate"),
        }
        return Document(
            str(attachment["id"]),
            fields,
            timestamp=dig(attachment, "version", "when") or _stamp_now(),
            access=access,
            content=_content(attachment, size),
        )

    def comment(
        self, comment: Mapping[str, Any], parent: Mapping[str, Any], space_name: str | None, access: Access
    ) -> Document:
        """Make the document of a comment. Raises `UnexpectedAnswer` if its body did not come."""
        fields: dict[str, JSON] = {
            "type": "comment",
            "title": comment.get("title"),
            "space": dig(parent, "space", "name") or space_name,
            str(parent.get("type") or "page"): parent.get("title"),
            "body": plain_text(_body(comment)),
            "url": self._url(comment),
            **self._origin(comment),
        }
        return Document(str(comment["id"]), fields, timestamp=dig(comment, "version", "when"), access=access)

    # What a CQL search found

    def found_space(self, hit: Mapping[str, Any], access: Access) -> Document:
        space = hit["space"]
        description = dig(space, "description", "plain", "value") or dig(space, "description", "view", "value")
        fields: dict[str, JSON] = {
            "type": "space",
            "title": _unmarked(hit.get("title")),
            "body": plain_text(str(description or _unmarked(hit.get("excerpt")) or "")),
            "url": self._hit_url(hit, space),
        }
        if self._is_cloud:
            fields |= self._origin(space)
        return Document(str(space["id"]), fields, timestamp=hit.get("lastModified"), access=access)

    def found_content(self, hit: Mapping[str, Any], access: Access) -> Document:
        """Make the document of a page, blog post, comment or attachment that was found. Raises `UnexpectedAnswer`."""
        content = hit["content"]
        fields: dict[str, JSON] = {
            "type": content.get("type"),
            "title": _unmarked(hit.get("title")),
            "space": dig(content, "space", "name"),
            "url": self._hit_url(hit, content),
            **self._origin(content),
        }
        reference = None
        if content.get("type") == "attachment":
            size = int(dig(content, "extensions", "fileSize") or 0)
            fields["size"] = size
            fields[str(dig(content, "container", "type") or "page")] = dig(content, "container", "title")
            reference = _content(content, size)
        else:
            fields["body"] = plain_text(_body(content))
        return Document(str(content["id"]), fields, timestamp=hit.get("lastModified"), access=access, content=reference)

    def _hit_url(self, hit: Mapping[str, Any], entity: Mapping[str, Any]) -> str | None:
        return address(str(hit["url"]), self._base) if hit.get("url") else self._url(entity)


def _body(content: Mapping[str, Any]) -> str:
    body = stored_body(content)
    if body is None:
        raise UnexpectedAnswer(f"Confluence sent no body of {content.get('title')!r}.")
    return body


def _content(attachment: Mapping[str, Any], size: int) -> ContentRef | None:
    link = dig(attachment, "_links", "download")
    if size <= 0 or not link:
        return None
    version = dig(attachment, "version", "number") or dig(attachment, "version", "when")
    media_type = dig(attachment, "extensions", "mediaType") or dig(attachment, "metadata", "mediaType")
    return ContentRef(
        name=str(attachment.get("title") or attachment["id"]),
        data={"download": str(link)},
        size_bytes=size,
        version=None if version is None else str(version),
        media_type=str(media_type) if media_type else None,
    )


def _unmarked(text: object) -> str | None:
    return None if text is None else _HIGHLIGHT.sub("", str(text))

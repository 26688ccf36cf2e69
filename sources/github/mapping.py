"""From GitHub's answers to documents: what of them becomes which field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from ..permissions import Directory, Readers, both
from ..source import JSON, ContentRef, Document, Identity

FILE_EXTENSIONS: Final = frozenset({".markdown", ".md", ".rst"})
LISTS: Final = ("labels", "assignees", "comments", "reviews", "reviewRequests")
_WORK: Final = ("number", "url", "createdAt", "closedAt", "title", "body", "author")


def repository_document(repository: Mapping[str, Any], access: list[str] | None) -> Document:
    fields = {key: value for key, value in repository.items() if key not in ("id", "updatedAt")}
    return Document(
        repository["id"], {"type": "Repository", **fields}, timestamp=repository["updatedAt"], access=access
    )


def work_document(node: Mapping[str, Any], access: list[str] | None) -> Document:
    """Make the document of an issue or a pull request whose lists are complete."""
    fields: dict[str, JSON] = {key: node.get(key) for key in _WORK}
    fields["issue_comments"] = node["comments"]["nodes"]
    fields["labels_field"] = _nodes(node.get("labels"))
    fields["assignees_list"] = _nodes(node["assignees"])
    if node["__typename"] == "PullRequest":
        fields |= {
            "type": "Pull request",
            "state": node["pullState"],
            "mergedAt": node["mergedAt"],
            "reviews_comments": [_review(review) for review in _nodes(node.get("reviews"))],
            "requested_reviewers": _nodes(node.get("reviewRequests")),
        }
    else:
        fields |= {"type": "Issue", "state": node["issueState"]}
    return Document(node["id"], fields, timestamp=node["updatedAt"], access=access)


def _nodes(connection: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [node for node in (connection or {}).get("nodes") or () if node is not None]


def _review(review: Mapping[str, Any]) -> dict[str, JSON]:
    return {
        "author": (review.get("author") or {}).get("login"),
        "body": review["body"],
        "state": review["state"],
        "comments": _nodes(review["comments"]),
    }


def is_text_file(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in FILE_EXTENSIONS


def file_document(
    full_name: str, entry: Mapping[str, Any], committed: str | None, access: list[str] | None, *, owner: str
) -> Document:
    """Make the document of an entry of a tree (which has a mode) or of a folder's listing."""
    path = str(entry["path"])
    size = int(entry.get("size") or 0)
    fields: dict[str, JSON] = {
        "name": PurePosixPath(path).name,
        "size": size,
        "type": "blob" if "mode" in entry else "file",
        "path": path,
        "extension": PurePosixPath(path).suffix,
    }
    if "mode" in entry:
        fields["mode"] = entry["mode"]
    content = ContentRef(
        name=PurePosixPath(path).name,
        data={"owner": owner, "full_name": full_name, "sha": entry["sha"]},
        size_bytes=size,
        version=str(entry["sha"]),
    )
    return Document(
        f"{full_name}/{path}", fields, timestamp=committed, access=access, content=content if size > 0 else None
    )


def principals(person: Mapping[str, Any]) -> list[str]:
    """Everything a person goes by: the id, the login, and the public e-mail address if there is one."""
    named = [("user_id", person["id"]), ("username", person.get("login")), ("email", person.get("email"))]
    return [f"{prefix}:{value}" for prefix, value in named if value]


def identity(member: Mapping[str, Any]) -> Identity:
    fields = {
        "user_id": f"user_id:{member['id']}",
        "user_name": f"username:{member.get('login') or ''}",
        "email": f"email:{member.get('email') or ''}",
    }
    return Identity(member["id"], fields, principals(member))


def readers_among(collaborators: Sequence[Mapping[str, Any]], member_ids: Readers) -> Readers:
    """The collaborators who are members of the organization, by all they go by. Unknown members let nobody in."""
    directory = Directory(people=[frozenset(principals(one)) for one in collaborators])
    return both(Readers.only(f"user_id:{one['id']}" for one in collaborators), member_ids, directory)

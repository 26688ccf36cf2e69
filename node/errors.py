"""What the node answers when it cannot do what was asked: the error shapes and status codes of Elasticsearch."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer with an error body. `facts` are the further members of the error object (`index`, `resource.id`, ...)."""

    def __init__(self, status: int, kind: str, reason: str, /, *, cause: ApiError | None = None, **facts: Any) -> None:
        super().__init__(reason)
        self.status = status
        self.kind = kind
        self.reason = reason
        self.cause = cause
        self.facts = facts
        self.headers: dict[str, str] = {}
        self.root: dict[str, Any] | None = None
        """The error that began it, where that is not this one."""

    def cause_object(self) -> dict[str, Any]:
        """Return the error alone, as it stands in bulk items and under `error`."""
        found: dict[str, Any] = {"type": self.kind, "reason": self.reason, **self.facts}
        if self.cause is not None:
            found["caused_by"] = self.cause.cause_object()
        return found

    def body(self) -> dict[str, Any]:
        """Return the whole body of the answer."""
        root = self.root or {"type": self.kind, "reason": self.reason, **self.facts}
        return {"error": {"root_cause": [root], **self.cause_object()}, "status": self.status}


def not_built(what: str) -> ApiError:
    """Return the refusal of something that Elasticsearch has and this node lacks."""
    return ApiError(
        501,
        "not_implemented_exception",
        f"{what} is not built into the Callboard node; docs/node.md lists what is. Use a real Elasticsearch for it.",
    )


def illegal_argument(reason: str) -> ApiError:
    """Return a 400 for an argument that is wrong."""
    return ApiError(400, "illegal_argument_exception", reason)


def parsing(reason: str) -> ApiError:
    """Return a 400 for a body that is JSON and does not mean anything."""
    return ApiError(400, "parsing_exception", reason)


def invalid_request(*problems: str) -> ApiError:
    """Return a 400 that lists everything that is missing or contradictory in a request."""
    text = "".join(f" {number}: {problem};" for number, problem in enumerate(problems, 1))
    return ApiError(400, "action_request_validation_exception", f"Validation Failed:{text}")


def index_not_found(name: str) -> ApiError:
    """Return the 404 for an index, alias or pattern that names nothing."""
    facts: dict[str, Any] = {
        "resource.type": "index_or_alias",
        "resource.id": name,
        "index_uuid": "_na_",
        "index": name,
    }
    return ApiError(404, "index_not_found_exception", f"no such index [{name}]", **facts)


def resource_not_found(reason: str) -> ApiError:
    """Return the 404 for a named thing other than an index."""
    return ApiError(404, "resource_not_found_exception", reason)


def version_conflict(doc_id: str, reason: str, index: str, uuid: str) -> ApiError:
    """Return the 409 of optimistic concurrency."""
    return ApiError(
        409,
        "version_conflict_engine_exception",
        f"[{doc_id}]: version conflict, {reason}",
        index_uuid=uuid,
        shard="0",
        index=index,
    )


def document_missing(doc_id: str, index: str, uuid: str) -> ApiError:
    """Return the 404 for a partial update of a document that does not exist."""
    return ApiError(
        404, "document_missing_exception", f"[{doc_id}]: document missing", index_uuid=uuid, shard="0", index=index
    )


def disk_full(detail: str) -> ApiError:
    """Return the 429 that Elasticsearch too gives at its flood stage: nothing was written, and it may be tried again."""
    return ApiError(
        429,
        "cluster_block_exception",
        "the node cannot write: its disk is full or its size limit is reached "
        f"({detail}). Nothing of this request was kept; free space, then send it again.",
    )

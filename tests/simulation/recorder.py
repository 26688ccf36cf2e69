"""What the server sees: every write to a job, every change of the content index, as it is carried out and not as it is told.

Stands between the faults and the node, so that a request that was refused is not seen and one whose answer was lost is. It judges
with tables of its own: nothing is taken from the code under test.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import attrs
import trio

from .rates import INDEX

JOBS = "/.elastic-connectors-sync-jobs"

WRITES = ("_doc", "_create", "_update")
LEGAL: dict[str | None, set[str]] = {
    None: {"pending"},
    "pending": {"in_progress", "canceled"},
    "in_progress": {"completed", "error", "suspended", "canceling"},
    "suspended": {"in_progress", "canceled"},
    "canceling": {"canceled", "error"},
}
"""As the Connector Protocol writes it; what is not here is over."""

worker: ContextVar[tuple[str, str] | None] = ContextVar("simulated worker", default=None)
"""(name, job) of the worker in whose task a request is made; None for people and janitors."""


@attrs.define
class Done:
    """What was really carried out on behalf of one job."""

    indexed: int = 0
    deleted: int = 0


@attrs.define(eq=False)
class Recorder:
    """An ASGI application around the node's. `complain` is told of every broken promise."""

    behind: Any
    complain: Callable[[str], None]
    note: Callable[[str], None]
    had_throughout: Callable[[str, str], bool]
    """(document id, job id) -> the source had it all the time since the job began."""
    jobs: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    done: dict[str, Done] = attrs.field(factory=dict)
    requests: Counter[str] = attrs.field(factory=Counter)
    _one_at_a_time: trio.Lock = attrs.field(factory=trio.Lock)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.behind(scope, receive, send)
            return
        body = await _body(receive)
        method, path = scope["method"], scope["path"]
        is_job = method in ("POST", "PUT") and (
            path.startswith("/_connector/_sync_job") or any(path.startswith(f"{JOBS}/{how}/") for how in WRITES)
        )
        if is_job:
            async with self._one_at_a_time:
                status, answer = await self._passed_on(scope, body, send)
                if status < 300:
                    await self._look_at_job(path, answer)
        else:
            status, answer = await self._passed_on(scope, body, send)
            if path == f"/{INDEX}/_bulk" and status == 200:
                self._look_at_bulk(_plain(scope, body), answer)
            if path == f"/{INDEX}/_delete_by_query":
                self.complain("somebody deleted content by query")
        self.requests[method] += 1
        self.note(f"{method} {path} -> {status}, {len(body)} bytes, {worker.get()}")

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask the node itself, past all faults. Shares no code with the store."""
        content = b"" if body is None else json.dumps(body).encode()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path.partition("?")[0],
            "raw_path": path.partition("?")[0].encode(),
            "root_path": "",
            "query_string": path.partition("?")[2].encode(),
            "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())],
            "client": ("127.0.0.1", 0),
            "server": ("node", 80),
        }
        status, answer = await self._passed_on(scope, content, None)
        return status, json.loads(answer or b"null")

    async def documents(self) -> dict[str, dict[str, Any]]:
        """Everything in the content index."""
        await self.ask("POST", f"/{INDEX}/_refresh")
        status, told = await self.ask("POST", f"/{INDEX}/_search", {"size": 10_000, "query": {"match_all": {}}})
        if status == 404:
            return {}
        return {hit["_id"]: hit["_source"] for hit in told["hits"]["hits"]}

    async def _passed_on(self, scope: Any, body: bytes, send: Any) -> tuple[int, bytes]:
        status, parts = 0, []
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def remember(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                parts.append(bytes(message.get("body", b"")))
            if send is not None:
                await send(message)

        await self.behind(scope, receive, remember)
        return status, b"".join(parts)

    async def _look_at_job(self, path: str, answer: bytes) -> None:
        told = json.loads(answer)
        job_id = told.get("_id") or told.get("id")
        if job_id is None:
            job_id = path.rpartition("/")[2]
        status, found = await self.ask("GET", f"{JOBS}/_doc/{job_id}")
        if status != 200:
            return
        now, before = found["_source"], self.jobs.get(job_id)
        self.jobs[job_id] = now
        was = None if before is None else before["status"]
        if now["status"] != was:
            self.note(f"job {job_id[:6]}: {was} -> {now['status']} by {worker.get()}")
        if before is None:
            if now["status"] != "pending":
                self.complain(f"job {job_id} began as {now['status']}")
            return
        if was == now["status"] and was not in LEGAL and now != before:
            self.complain(f"job {job_id} is over ({was}) and was written again")
        if was != now["status"] and now["status"] not in LEGAL.get(was, set()):
            self.complain(f"job {job_id} went from {was} to {now['status']}")
        if before.get("claim_id") != now.get("claim_id") and was not in ("pending", "suspended"):
            self.complain(f"job {job_id} was claimed while it was {was}")

    def _look_at_bulk(self, body: bytes, answer: bytes) -> None:
        lines = [line for line in body.split(b"\n") if line]
        kinds: list[tuple[str, str]] = []
        at = 0
        while at < len(lines):
            ((kind, target),) = json.loads(lines[at]).items()
            kinds.append((kind, target["_id"]))
            at += 1 if kind == "delete" else 2
        by = worker.get()
        # Refused items were taken out before, so that items and operations are as many.
        for (kind, document_id), item in zip(kinds, json.loads(answer)["items"], strict=True):
            if item[kind]["status"] >= 300 or by is None:
                continue
            done = self.done.setdefault(by[1], Done())
            if kind != "delete":
                done.indexed += 1
                continue
            done.deleted += 1
            if self.had_throughout(document_id, by[1]):
                self.complain(f"{document_id} was deleted, although the source had it since job {by[1]} began")


def _plain(scope: Any, body: bytes) -> bytes:
    compressed = any(name == b"content-encoding" and value == b"gzip" for name, value in scope["headers"])
    return gzip.decompress(body) if compressed else body


async def _body(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)

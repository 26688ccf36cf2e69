"""What the node is asked for by a whole service, looked at as it is carried out: jobs, schedules, and documents of all connectors.

Every request runs in a task of the server's own: as over a real network, the death of whoever asked does not undo half a write, and
the clock of whoever asked is not the server's. It judges with tables of its own; nothing is taken from the code under test.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import attrs
import trio

from .recorder import JOBS, LEGAL, Done, Recorder

CONNECTORS = "/.elastic-connectors"
EPOCH = datetime.fromisoformat("2030-01-01T00:00:00+00:00")
TERMINAL = ("completed", "error", "canceled")

on_behalf_of: ContextVar[str | None] = ContextVar("simulated job", default=None)
"""The job in whose task a request is made; None for everything else."""


@attrs.define
class Request:
    """One request on its way, and its answer."""

    scope: Any
    body: bytes
    by: str
    job: str | None
    answer: list[Any] = attrs.field(factory=list)
    error: BaseException | None = None
    is_done: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class Server:
    """Carries requests out, each in a task of its own, begun by one that belongs to nobody."""

    app: Any
    _inbox: Any = None
    now_serving: ContextVar[Request | None] = attrs.field(
        factory=lambda: ContextVar("request that is carried out", default=None)
    )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve for ever."""
        self._inbox, requests = trio.open_memory_channel[Request](1000)
        task_status.started()
        async with trio.open_nursery() as nursery:
            async for request in requests:
                nursery.start_soon(self._serve, request)

    async def ask(self, request: Request) -> None:
        """Have it carried out. Cancelled: it is carried out nevertheless."""
        self._inbox.send_nowait(request)
        await request.is_done.wait()

    async def _serve(self, request: Request) -> None:
        self.now_serving.set(request)
        messages = [{"type": "http.request", "body": request.body, "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await trio.sleep_forever()
            raise AssertionError("for ever has an end")

        async def send(message: Any) -> None:
            request.answer.append(message)

        try:
            await self.app(request.scope, receive, send)
        except Exception as exc:
            request.error = exc
        finally:
            request.is_done.set()


@attrs.define(eq=False)
class ServiceCable:
    """The way from one service to the server: it takes its time, may be cut for a while, and a dead one's is cut for good."""

    server: Server
    name: str
    rng: Any
    latency_s: float
    is_cut: bool = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ConnectionError("there is nothing but HTTP here")
        body = await _body(receive)
        request = Request(scope, body, self.name, on_behalf_of.get())
        await trio.sleep(self.rng.random() * self.latency_s)
        if self.is_cut:
            raise ConnectionError("the network is gone")
        await self.server.ask(request)
        if self.is_cut:
            raise ConnectionError("the network is gone")
        for message in request.answer:
            await send(message)
        if request.error is not None:
            raise request.error


@attrs.define
class JobSeen:
    """One job, as its writes showed it."""

    id: str
    connector: str
    kind: str
    trigger: str
    created_s: float
    began_s: list[float] = attrs.field(factory=list)
    ended_s: float | None = None
    canceling_s: float | None = None
    workers: list[str] = attrs.field(factory=list)
    source: dict[str, Any] = attrs.field(factory=dict)

    @property
    def status(self) -> str:
        return str(self.source["status"])


@attrs.define(eq=False)
class ServiceRecorder(Recorder):
    """The recorder of jobs and documents, for many connectors and indices."""

    server: Server | None = None
    seen_jobs: dict[str, JobSeen] = attrs.field(factory=dict)
    taken: dict[tuple[str, str], list[tuple[float, float]]] = attrs.field(factory=dict)
    """(connector, kind) -> fire times that were taken, with when that was."""
    note_request: Callable[[str], None] = print
    on_job: Callable[[JobSeen, str | None, str], None] = lambda *_: None
    in_flight: Counter[str] = attrs.field(factory=Counter)
    bulk_max: int = 5

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = await _body(receive)
        method, path = scope["method"], scope["path"]
        request = None if self.server is None else self.server.now_serving.get()
        by, job = ("person", None) if request is None else (request.by, request.job)
        is_write = method in ("POST", "PUT", "DELETE") and not path.endswith(("_search", "_refresh", "_pit"))
        if is_write and path.startswith((JOBS, CONNECTORS, "/_connector")):
            async with self._one_at_a_time:
                status, answer = await self._passed_on(scope, body, send)
                if status < 300:
                    await self._look_at_protocol(path, answer, by)
        elif (is_write and path.startswith("/shelf-")) or (path.startswith("/.search-acl-filter-shelf-") and is_write):
            index = path.split("/")[1]
            self.in_flight[job or by] += path.endswith("_bulk")
            if job is not None and self.in_flight[job] > self.bulk_max:
                self.complain(f"job {job[:6]} has {self.in_flight[job]} bulk requests under way")
            try:
                status, answer = await self._passed_on(scope, body, send)
            finally:
                self.in_flight[job or by] -= path.endswith("_bulk")
            if path.endswith("/_bulk") and status == 200:
                self._look_at_content(index, job, _plain(scope, body), answer)
            if path.endswith("/_delete_by_query"):
                self.complain(f"somebody deleted content of {index} by query")
        else:
            status, answer = await self._passed_on(scope, body, send)
        self.requests[method] += 1
        self.note_request(f"{by}: {method} {path} -> {status}, {len(body)} bytes, {(job or '-')[:6]}")

    async def _look_at_protocol(self, path: str, answer: bytes, by: str) -> None:
        told = json.loads(answer)
        document_id = told.get("_id") or told.get("id") or path.rpartition("/")[2]
        if path.startswith((JOBS, "/_connector/_sync_job")):
            status, found = await self.ask("GET", f"{JOBS}/_doc/{document_id}")
            if status == 200:
                self._look_at_written_job(document_id, found["_source"], by)
        else:
            status, found = await self.ask("GET", f"{CONNECTORS}/_doc/{document_id}")
            if status == 200:
                self._look_at_schedules(document_id, found["_source"], by)

    def _look_at_written_job(self, job_id: str, now: dict[str, Any], by: str) -> None:
        before = self.jobs.get(job_id)
        self.jobs[job_id] = now
        was = None if before is None else str(before["status"])
        if before is None:
            self.seen_jobs[job_id] = JobSeen(
                job_id, now["connector"]["id"], now["job_type"], now["trigger_method"], trio.current_time(), source=now
            )
            if now["status"] != "pending":
                self.complain(f"job {job_id[:6]} began as {now['status']}")
        seen = self.seen_jobs[job_id]
        seen.source = now
        if was == now["status"] and was not in LEGAL and now != before:
            self.complain(f"job {job_id[:6]} is over ({was}) and was written again by {by}")
        if was is not None and was != now["status"] and now["status"] not in LEGAL.get(was, set()):
            self.complain(f"job {job_id[:6]} went from {was} to {now['status']} by {by}")
        if before is not None and before.get("claim_id") != now.get("claim_id") and was not in ("pending", "suspended"):
            self.complain(f"job {job_id[:6]} was claimed by {by} while it was {was}")
        if was == now["status"]:
            return
        self.note(f"job {job_id[:6]} of {seen.connector} ({seen.kind}): {was} -> {now['status']} by {by}")
        if now["status"] == "in_progress":
            seen.began_s.append(trio.current_time())
            seen.workers.append(str(now.get("worker_hostname")))
        if now["status"] == "canceling":
            seen.canceling_s = trio.current_time()
        if now["status"] in TERMINAL:
            seen.ended_s = trio.current_time()
        self.on_job(seen, was, by)

    def _look_at_schedules(self, connector_id: str, now: dict[str, Any], by: str) -> None:
        for kind, name in (
            ("full", "last_sync_scheduled_at"),
            ("access_control", "last_access_control_sync_scheduled_at"),
        ):
            if not now.get(name):
                continue
            fire_s = (datetime.fromisoformat(now[name]) - EPOCH).total_seconds()
            taken = self.taken.setdefault((connector_id, kind), [])
            if taken and taken[-1][0] == fire_s:
                continue
            if taken and fire_s < taken[-1][0]:
                self.complain(f"the schedule of {connector_id} went back from {taken[-1][0]:.0f} s to {fire_s:.0f} s")
            self.note(f"{by} takes the {kind} fire time {fire_s:.0f} s of {connector_id}")
            taken.append((fire_s, trio.current_time()))

    def _look_at_content(self, index: str, job: str | None, body: bytes, answer: bytes) -> None:
        lines = [line for line in body.split(b"\n") if line]
        kinds: list[tuple[str, str]] = []
        at = 0
        while at < len(lines):
            ((kind, target),) = json.loads(lines[at]).items()
            kinds.append((kind, target["_id"]))
            at += 1 if kind == "delete" else 2
        if job is None:
            return
        done = self.done.setdefault(job, Done())
        for (kind, document_id), item in zip(kinds, json.loads(answer)["items"], strict=True):
            if item[kind]["status"] >= 300:
                continue
            if kind != "delete":
                done.indexed += 1
                continue
            done.deleted += 1
            if self.had_throughout(f"{index}/{document_id}", job):
                self.complain(f"{index}/{document_id} was deleted, although the source had it since {job[:6]} began")

    async def documents_of(self, index: str) -> dict[str, dict[str, Any]]:
        """Everything in one index."""
        await self.ask("POST", f"/{index}/_refresh")
        status, told = await self.ask("POST", f"/{index}/_search", {"size": 10_000, "query": {"match_all": {}}})
        return {} if status == 404 else {hit["_id"]: hit["_source"] for hit in told["hits"]["hits"]}


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

"""Every metric: its name, type and meaning, once; counted from events and read from the running service; written for Prometheus."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, Literal

import attrs

from ...runtime import TreeNode
from ...runtime.budget import Budget
from ..journal.entry import Entry
from ..journal.events import BulkAnswered, ContentRead, PageCompared, Retried, Throttled
from .view import HEALTHS, health_of

BULK_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LAGS_KEPT = 60
ENDED = {
    "job_completed": "completed", "job_failed": "error", "job_suspended": "suspended", "job_cancelled": "canceled",
}  # fmt: skip


@attrs.frozen
class Metric:
    """What a metric is."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()


METRICS: tuple[Metric, ...] = (
    Metric("callboard_events_total", "counter", "Events told, by kind; see the journal for what each means.", ("kind",)),
    Metric("callboard_jobs_running", "gauge", "Jobs that run in this process."),
    Metric("callboard_jobs_waiting", "gauge", "Jobs that wait for this service."),
    Metric("callboard_jobs_ended_total", "counter", "Jobs that ended here, by how.", ("status",)),
    Metric("callboard_connectors", "gauge", "Connectors looked after, by health: ok, failing, paused, unconfigured.", ("health",)),
    Metric("callboard_documents_total", "counter", "Documents by stage: compared, sent (in bulk requests), read (content).", ("stage",)),
    Metric("callboard_bytes_total", "counter", "Bytes by stage: sent to Elasticsearch, read as content.", ("stage",)),
    Metric("callboard_bulk_seconds", "histogram", "How long bulk requests took, by outcome.", ("outcome",)),
    Metric("callboard_throttled_total", "counter", "Answers that the server is too busy (429), by who answered.", ("by",)),
    Metric("callboard_retries_total", "counter", "Requests sent again, by what they were.", ("what",)),
    Metric("callboard_bulk_concurrency", "gauge", "Bulk requests that a job may have under way now (adaptive).", ("job",)),
    Metric("callboard_queued_documents", "gauge", "Documents handed to the sink and not answered yet.", ("job",)),
    Metric("callboard_budget_bytes", "gauge", "Bytes that may be on their way at once, by budget (documents, extraction), over all jobs.", ("budget",)),
    Metric("callboard_budget_held_bytes", "gauge", "Bytes of the budget that are held now.", ("budget",)),
    Metric("callboard_budget_waiting", "gauge", "How many wait for bytes of the budget.", ("budget",)),
    Metric("callboard_content_total", "counter", "Contents read and extracted, by outcome.", ("outcome",)),
    Metric("callboard_content_seconds_total", "counter", "Seconds spent on reading and extracting contents."),
    Metric("callboard_actor_mailbox", "gauge", "Messages that wait in an actor's mailbox.", ("actor",)),
    Metric("callboard_actor_busy_seconds_total", "counter", "Seconds an actor spent in its handlers.", ("actor",)),
    Metric("callboard_actor_restarts_total", "counter", "How often an actor was started again.", ("actor",)),
    Metric("callboard_loop_lag_seconds", "gauge", "How late the event loop woke up at worst within the last minute, measured every second."),
    Metric("callboard_journal_queued", "gauge", "Entries of the journal that wait to be written."),
    Metric("callboard_journal_written_total", "counter", "Entries of the journal that were written."),
    Metric("callboard_journal_dropped_total", "counter", "Entries of the journal that were dropped because its queue was full."),
)  # fmt: skip
BY_NAME = {metric.name: metric for metric in METRICS}
Labels = tuple[str, ...]


@attrs.define(eq=False)
class Metrics:
    """Listens to events, and keeps the numbers. Belongs to one service."""

    loop_lags_s: deque[float] = attrs.field(factory=lambda: deque(maxlen=LAGS_KEPT))
    """One a second. Who asks seldom would miss a short delay, so the worst of a minute is told."""
    _counts: dict[tuple[str, Labels], float] = attrs.field(factory=dict)
    _bulks: dict[str, list[int]] = attrs.field(factory=dict)
    _bulk_sums: dict[str, float] = attrs.field(factory=dict)

    def listen(self, entry: Entry) -> None:
        """Count one event."""
        happening = entry.happening
        self._add("callboard_events_total", 1, entry.kind)
        if entry.kind in ENDED:
            self._add("callboard_jobs_ended_total", 1, ENDED[entry.kind])
        match happening:
            case BulkAnswered():
                if happening.outcome == "ok":
                    self._add("callboard_documents_total", happening.documents, "sent")
                    self._add("callboard_bytes_total", happening.size_bytes, "sent")
                buckets = self._bulks.setdefault(happening.outcome, [0] * (len(BULK_BOUNDS_S) + 1))
                place = next((at for at, bound in enumerate(BULK_BOUNDS_S) if happening.seconds <= bound), -1)
                buckets[place] += 1
                self._bulk_sums[happening.outcome] = self._bulk_sums.get(happening.outcome, 0.0) + happening.seconds
            case PageCompared():
                self._add("callboard_documents_total", happening.documents, "compared")
            case ContentRead():
                self._add("callboard_documents_total", 1, "read")
                self._add("callboard_bytes_total", happening.size_bytes, "read")
                self._add("callboard_content_total", 1, happening.outcome)
                self._add("callboard_content_seconds_total", happening.seconds)
            case Throttled():
                self._add("callboard_throttled_total", 1, happening.by)
            case Retried():
                self._add("callboard_retries_total", 1, happening.what)

    def _add(self, name: str, value: float, *labels: str) -> None:
        self._counts[name, labels] = self._counts.get((name, labels), 0.0) + value

    def exposition(self, state: Any, tree: TreeNode) -> str:
        """All metrics as text. `state` is the `ServiceState` that is asked for what is true now."""
        values = {**self._counts, **dict(_read(state, tree))}
        values["callboard_loop_lag_seconds", ()] = max(self.loop_lags_s, default=0.0)
        lines: list[str] = []
        for metric in METRICS:
            lines += [f"# HELP {metric.name} {metric.meaning}", f"# TYPE {metric.name} {metric.kind}"]
            if metric.kind == "histogram":
                lines += self._histogram(metric.name)
                continue
            lines += [
                f"{name}{_labels(metric.labels, labels)} {value:g}"
                if value < 1e6
                else f"{name}{_labels(metric.labels, labels)} {value!r}"
                for (name, labels), value in sorted(values.items())
                if name == metric.name
            ]
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str) -> Iterator[str]:
        for outcome, buckets in sorted(self._bulks.items()):
            total = 0
            for bound, count in zip((*(f"{one:g}" for one in BULK_BOUNDS_S), "+Inf"), buckets, strict=True):
                total += count
                yield f"{name}_bucket{_labels(('outcome', 'le'), (outcome, bound))} {total}"
            yield f"{name}_sum{_labels(('outcome',), (outcome,))} {self._bulk_sums[outcome]!r}"
            yield f"{name}_count{_labels(('outcome',), (outcome,))} {total}"


def _read(state: Any, tree: TreeNode) -> Iterator[tuple[tuple[str, Labels], float]]:
    yield ("callboard_jobs_running", ()), len(state.running)
    yield ("callboard_jobs_waiting", ()), len(state.waiting)
    healths = Counter(health_of(state, connector) for connector in state.connectors.values())
    for health in HEALTHS:
        yield ("callboard_connectors", (health,)), healths[health]
    yield ("callboard_journal_queued", ()), len(state.journal)
    yield ("callboard_journal_written_total", ()), state.journal.written
    yield ("callboard_journal_dropped_total", ()), state.journal.dropped
    for job_id, run in list(state.teller.runs.items()):
        progress = run.progress()
        yield ("callboard_bulk_concurrency", (job_id,)), progress.concurrency
        yield ("callboard_queued_documents", (job_id,)), progress.queued
    for name, budget in _budgets(state).items():
        yield ("callboard_budget_bytes", (name,)), budget.size_bytes
        yield ("callboard_budget_held_bytes", (name,)), budget.held_bytes
        yield ("callboard_budget_waiting", (name,)), budget.waiting
    for path, node in _walk(tree, ""):
        yield ("callboard_actor_mailbox", (path,)), node.waiting
        yield ("callboard_actor_busy_seconds_total", (path,)), node.busy_s
        yield ("callboard_actor_restarts_total", (path,)), node.restarts


def _budgets(state: Any) -> dict[str, Budget]:
    """The byte budgets that all jobs share: of their documents, and of the extraction."""
    extraction = getattr(state.extractor, "budget", None)
    return {"documents": state.memory} | ({"extraction": extraction} if extraction is not None else {})


def _walk(node: TreeNode, above: str) -> Iterator[tuple[str, TreeNode]]:
    for child in node.children:
        path = f"{above}/{child.name}" if above else child.name
        yield path, child
        yield from _walk(child, path)


def _labels(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    pairs = [
        '{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        for name, value in zip(names, values, strict=True)
    ]
    return "{" + ",".join(pairs) + "}"


def metrics_page() -> str:
    """What each metric means, as `docs/metrics.md` has it."""
    rows = "\n".join(
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.meaning} |"
        for one in METRICS
    )
    return f"{_PAGE}{rows}\n"


_PAGE = """# What each metric means

<!-- Made by `make docs` from the code itself; a test checks that it is fresh. -->

With `callboard.operations.enabled: true` the service serves `/metrics` for Prometheus, `/health`, `/ready`, `/tree`, `/api/overview` and
server-sent `/events` at `callboard.operations.host` and `port`. Elsewhere than on loopback a token is needed: `Authorization: Bearer TOKEN`.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
"""

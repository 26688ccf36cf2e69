"""OpenTelemetry traces of jobs, made of the events: a span from claim to end, below it partitions, pages, bulks and contents.

Only imported when `callboard.operations.traces` is on. The spans go to the tracer provider of the process, which the usual
`OTEL_` environment variables configure.
"""

from __future__ import annotations

from typing import Any

import attrs

from ..journal.entry import Entry
from ..journal.events import (
    BulkAnswered,
    ContentRead,
    JobClaimed,
    PageCompared,
    PartitionBroken,
    PartitionClosed,
    PartitionOpened,
)

ENDS = frozenset({"job_completed", "job_failed", "job_suspended", "job_cancelled", "job_lost"})


@attrs.define(eq=False)
class _JobSpans:
    context: Any
    span: Any
    partitions: dict[str, tuple[Any, Any]] = attrs.field(factory=dict)


class Traces:
    """Listens to events. Raises `ModuleNotFoundError` if OpenTelemetry is not installed."""

    def __init__(self, provider: Any = None) -> None:
        from opentelemetry import trace

        self._trace = trace
        self._tracer = trace.get_tracer("callboard", tracer_provider=provider)
        self._jobs: dict[str, _JobSpans] = {}

    def listen(self, entry: Entry) -> None:
        """Begin, fill or end the spans that an event belongs to."""
        happening, at = entry.happening, int(entry.at.timestamp() * 1e9)
        if isinstance(happening, JobClaimed):
            facts = {"job": entry.job_id, "connector": entry.connector_id, "index": happening.index}
            span = self._tracer.start_span(f"job {happening.job_type}", start_time=at, attributes=facts)
            self._jobs[entry.job_id] = _JobSpans(self._trace.set_span_in_context(span), span)
            return
        job = self._jobs.get(entry.job_id)
        if job is None:
            return
        match happening:
            case PartitionOpened():
                span = self._tracer.start_span(
                    "partition", job.context, start_time=at, attributes={"partition": happening.partition}
                )
                job.partitions[happening.partition] = span, self._trace.set_span_in_context(span)
            case PartitionClosed() | PartitionBroken():
                found = job.partitions.pop(happening.partition, None)
                if found is not None:
                    found[0].set_attribute("documents", happening.listed)
                    if isinstance(happening, PartitionBroken):
                        self._fail(found[0], happening.why)
                    found[0].end(at)
            case PageCompared():
                above = job.partitions.get(happening.partition)
                context = above[1] if above is not None else job.context
                self._took("page", context, at, happening.seconds, documents=happening.documents)
            case BulkAnswered():
                sizes: dict[str, Any] = {
                    "documents": happening.documents,
                    "bytes": happening.size_bytes,
                    "outcome": happening.outcome,
                }
                self._took("bulk", job.context, at, happening.seconds, **sizes)
            case ContentRead():
                self._took("content", job.context, at, happening.seconds, outcome=happening.outcome)
            case _ if entry.kind in ENDS:
                for span, _ in job.partitions.values():
                    span.end(at)
                if entry.kind in ("job_failed", "job_lost"):
                    self._fail(job.span, happening.sentence())
                job.span.set_attribute("end", entry.kind)
                job.span.end(at)
                del self._jobs[entry.job_id]

    def _took(self, name: str, context: Any, at: int, seconds: float, **facts: Any) -> None:
        span = self._tracer.start_span(name, context, start_time=at - int(seconds * 1e9), attributes=facts)
        span.end(at)

    def _fail(self, span: Any, why: str) -> None:
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, why))

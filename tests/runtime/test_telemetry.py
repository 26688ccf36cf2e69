"""Spans for OpenTelemetry, and events for structlog."""

from __future__ import annotations

from typing import Any

import pytest
import structlog.testing
import trio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from callboard.runtime import ChildSpec, Context, Task, log_event, open_system

from .conftest import Count, Crash, Note, Recorders


class Pump(Task):
    async def run(self, context: Context) -> None:
        await trio.lowlevel.checkpoint()


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Any:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test")


async def test_start_handlers_and_stop_have_spans_with_counts(
    autojump_clock: Any, recorders: Recorders, tracer: Any, exporter: InMemorySpanExporter
) -> None:
    async with open_system(tracer=tracer) as system:
        ref = await system.spawn(recorders.spec("a"))
        await ref.tell(Note("one"))
        assert await ref.ask(Count(), timeout_s=1) == 1
        pump = await system.spawn(ChildSpec(name="pump", start=Pump, restart="temporary"))
        await pump.monitor()
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == [
        "Recorder start", "Recorder Note", "Recorder Count", "Pump run", "Recorder stop"]  # fmt: skip
    facts = [dict(span.attributes or {}) for span in spans]
    assert [fact["actor.path"] for fact in facts] == ["callboard/a"] * 3 + ["callboard/pump", "callboard/a"]
    assert [fact.get("actor.processed") for fact in facts] == [None, 0, 1, None, 2]
    assert facts[-1]["actor.reason"] == "shutdown"


async def test_the_span_of_a_crash_has_its_exception(
    autojump_clock: Any, recorders: Recorders, tracer: Any, exporter: InMemorySpanExporter
) -> None:
    async with open_system(tracer=tracer) as system:
        ref = await system.spawn(recorders.spec("a", restart="temporary"))
        await ref.tell(Crash("boom"))
        await ref.monitor()
    crashed, stopped = exporter.get_finished_spans()[1:]
    assert crashed.status.status_code is StatusCode.ERROR
    assert (crashed.events[0].attributes or {})["exception.message"] == "boom"
    assert (stopped.attributes or {})["actor.reason"] == "ValueError: boom"


async def test_events_are_written_to_structlog(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system() as system:
        with structlog.testing.capture_logs() as lines, system.events.calling(log_event):
            ref = await system.spawn(recorders.spec("a", restart="temporary"))
            await ref.tell(Crash("boom"))
            await ref.monitor()
            await ref.tell(Note("a secret"))
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("started", "debug"), ("crashed", "error"), ("stopped", "debug"), ("dead_letter", "warning")]  # fmt: skip
    assert lines[1]["reason"] == "ValueError: boom"
    assert "secret" not in str(lines)

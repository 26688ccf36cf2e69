"""What actors do, for OpenTelemetry and structlog. Nothing in here runs, or is imported, unless it is asked for.

    from opentelemetry import trace

    async with open_system(tracer=trace.get_tracer("my.program")) as system, ...

Spans: `<Class> start`, `<Class> <Message>` and `<Class> stop` for actors, `<Class> run` for tasks. They carry the path and
counts as attributes, and the exception of a crash. Spans begun in a handler are children of the handler's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import structlog

from .events import Event
from .lifecycle import StopReason

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from .actor import Actor, ActorRef, Context
    from .task import Task

Method: TypeAlias = Callable[..., Awaitable[Any]]


class Telemetry:
    """Puts spans round what actors and tasks do."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def start(self, actor: Actor, ref: ActorRef[Any]) -> None:
        """Call `started` within a span."""
        with self._tracer.start_as_current_span(f"{type(actor).__name__} start", attributes={"actor.path": ref.path}):
            await actor.started()

    def methods(self, actor: Actor, ref: ActorRef[Any]) -> dict[type[Any], Method]:
        """The handlers of an actor, each within a span."""
        return {message: self._traced(message, method, ref) for message, method in type(actor)._methods.items()}

    def _traced(self, message_class: type[Any], method: Method, ref: ActorRef[Any]) -> Method:
        async def traced(actor: Actor, message: Any) -> Any:
            facts: dict[str, Any] = {
                "actor.path": ref.path,
                "actor.waiting": len(ref._mailbox.data),
                "actor.processed": ref.processed,
            }
            name = f"{type(actor).__name__} {message_class.__name__}"
            with self._tracer.start_as_current_span(name, attributes=facts):
                return await method(actor, message)

        return traced

    async def stop(self, actor: Actor, ref: ActorRef[Any], reason: StopReason) -> None:
        """Call `stopping` within a span."""
        facts: dict[str, Any] = {"actor.path": ref.path, "actor.processed": ref.processed, "actor.reason": str(reason)}
        with self._tracer.start_as_current_span(f"{type(actor).__name__} stop", attributes=facts):
            await actor.stopping(reason)

    async def run(self, task: Task, context: Context) -> None:
        """Run a task within a span."""
        with self._tracer.start_as_current_span(f"{type(task).__name__} run", attributes={"actor.path": context.path}):
            await task.run(context)


_LEVELS = {"crashed": "error", "escalated": "error", "stalled": "warning", "slow_handler": "warning",
           "dead_letter": "warning", "restarted": "info"}  # fmt: skip


def log_event(event: Event) -> None:
    """Write an event of a system to structlog: `with system.events.calling(log_event)`."""
    log = structlog.get_logger()
    write = getattr(log, _LEVELS.get(event.kind, "debug"))
    reason = event.detail
    if isinstance(reason, StopReason):
        write(event.kind, actor=event.path, reason=str(reason), exc_info=reason.error)
    elif event.kind == "dead_letter":
        # Its class only: what a message says may be a secret.
        write(event.kind, actor=event.path, message=type(reason).__name__)
    else:
        write(event.kind, actor=event.path, detail=reason)

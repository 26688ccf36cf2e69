"""What happens to connectors, schedules and the service itself, as events. What happens in jobs is in `events.py`.

The same holds for them: the journal, the page, the metrics and the written list in `docs/` are all derived from these classes.
"""

from __future__ import annotations

from .entry import Happening, event
from .words import amount, span

LATE_S = 60.0
"""From when on it is told that a schedule fired late."""


# Connectors and schedules


@event("The service begins to look after a connector.")
class ConnectorFound(Happening):
    def sentence(self) -> str:
        return "The service looks after this connector now."


@event("A connector was deleted, or is not this service's any more.")
class ConnectorGone(Happening):
    def sentence(self) -> str:
        return "The service does not look after this connector any more."


@event("The service sees that somebody has paused a connector; its jobs here are suspended.", level="warning")
class ConnectorPaused(Happening):
    by: str
    why: str = ""
    since: str = ""

    def sentence(self) -> str:
        return f"Somebody paused the connector ({self.by or 'it is not known where'}){f': {self.why}' if self.why else ''}."


@event("The service sees that somebody has resumed a connector.")
class ConnectorResumed(Happening):
    def sentence(self) -> str:
        return "Somebody resumed the connector."


@event("The source of a connector answers.")
class ConnectorConnected(Happening):
    def sentence(self) -> str:
        return "The source answers."


@event("The source of a connector cannot be used; once for each reason.", level="error")
class ConnectorFailed(Happening):
    why: str

    def sentence(self) -> str:
        return f"The source cannot be used: {self.why}"


@event("Missing settings or features were added to a connector's document.")
class SchemaKeptUp(Happening):
    fields: list[str]

    def sentence(self) -> str:
        names = ", ".join(self.fields[:10])
        return f"Brought the connector's document up to date: {names}." if names else "Brought the features up to date."


@event("A draft of sync rules was validated.")
class DraftValidated(Happening):
    valid: bool

    def sentence(self) -> str:
        return "The draft of the sync rules is valid." if self.valid else "The draft of the sync rules is not valid."


@event("A schedule has fired and made a job.")
class ScheduleFired(Happening):
    job_type: str
    fire_time: str
    late_s: float = 0.0

    def sentence(self) -> str:
        late = f", {span(self.late_s)} late" if self.late_s >= LATE_S else ""
        return f"The schedule of the {self.job_type.replace('_', ' ')} sync fired ({self.fire_time}{late})."


@event("Fire times passed while no service ran; told once, soon after the next has started.", level="warning")
class FiresMissed(Happening):
    job_type: str
    count: int
    """At most `MISSED_MAX`; then there may have been more."""
    first: str
    last: str
    is_caught_up: bool

    def sentence(self) -> str:
        what = f"The schedule of the {self.job_type.replace('_', ' ')} sync"
        when = f"once ({self.last})" if self.count == 1 else f"{self.count:,} times ({self.first} to {self.last})"
        then = (
            "one sync makes up for it" if self.is_caught_up else "passed over, as `callboard.missed_schedules` has it"
        )
        return f"{what} was due {when} while no service ran; {then}."


@event("A schedule was due and made no job.", level="warning")
class ScheduleMissed(Happening):
    job_type: str
    why: str

    def sentence(self) -> str:
        kind = f"the {self.job_type.replace('_', ' ')} sync" if self.job_type else "a sync"
        return f"The schedule of {kind} was due and made no job: {self.why}"


# The process


@event("The service has started.")
class ServiceStarted(Happening):
    rehearsal: str = ""

    def sentence(self) -> str:
        return f"The service started a REHEARSAL: {self.rehearsal}." if self.rehearsal else "The service started."


@event(
    "In a rehearsal: a rule of the fault plan has hit an actor, a stream, a budget or a worker process.",
    level="warning",
)
class FaultInjected(Happening):
    path: str
    effect: str
    point: str
    rule: str
    what: str = ""

    def sentence(self) -> str:
        what = f" ({self.what})" if self.what else ""
        return f"REHEARSAL: the fault rule {self.rule} injected {self.effect} at {self.point}{what} of {self.path or 'the service'}."


@event("The service is stopping in order.")
class ServiceStopped(Happening):
    def sentence(self) -> str:
        return "The service stops."


@event("A person pressed a button of the operations page.")
class PersonActed(Happening):
    what: str

    def sentence(self) -> str:
        return f"Somebody {self.what} on the operations page."


@event("An actor has ended with an error.", level="error")
class ActorCrashed(Happening):
    path: str
    why: str

    def sentence(self) -> str:
        return f"{self.path} crashed: {self.why}"


@event("A supervisor has started an actor again.", level="warning")
class ActorRestarted(Happening):
    path: str
    why: str

    def sentence(self) -> str:
        return f"{self.path} was started again after: {self.why}"


@event("A supervisor has given up on a child.", level="error")
class SupervisorGaveUp(Happening):
    path: str
    why: str

    def sentence(self) -> str:
        return f"{self.path} gave up: {self.why}"


@event("A message reached an actor that had ended.", level="warning")
class MessageUndelivered(Happening):
    path: str
    message: str

    def sentence(self) -> str:
        return f"A message to {self.path} was not delivered: {self.message}"


@event("Something has blocked the event loop.", level="warning")
class LoopStalled(Happening):
    path: str
    stack: str

    def sentence(self) -> str:
        return f"{self.path} blocked the event loop."


@event("The journal's queue was full, or its entries could not be written.", level="warning")
class EntriesDropped(Happening):
    count: int

    def sentence(self) -> str:
        return f"{amount(self.count, 'entry is', 'entries are')} missing here: there were more than the journal could write."


@event("A job told more of one kind than the journal keeps; told at its end.")
class EntriesFolded(Happening):
    of: str
    count: int

    def sentence(self) -> str:
        name = self.of.replace("_", " ")
        return f"{self.count:,} more of the kind “{name}” are not listed one by one."

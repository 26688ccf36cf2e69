"""Every event that the service and the engine must tell of, once: its name, when it is told, its facts and its sentence.

The journal, the story of a job, the metrics, the traces and the written list in `docs/` are all derived from these classes. A class
with `is_kept = False` is told at the pace of requests: it feeds metrics and traces, and reaches the journal only folded.
"""

from __future__ import annotations

from .entry import KINDS, Happening, event

LATE_S = 60.0
"""From when on it is told that a schedule fired late."""


def amount(count: int, one: str, many: str = "") -> str:
    """Say a number of things."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def span(seconds: float) -> str:
    """Say how long."""
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes} min"
        if minutes < 120 and not rest
        else f"{minutes // 60} h {minutes % 60} min"
        if minutes >= 120
        else f"{minutes} min {rest} s"
    )


def size(size_bytes: float) -> str:
    """Say how large."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size_bytes < 1000 or unit == "GB":
            return f"{size_bytes:,.0f} {unit}" if unit == "bytes" or size_bytes >= 100 else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    raise AssertionError


def part(key: str) -> str:
    """Name a partition; a source that is one single part calls it nothing or a dot."""
    return "the source" if key in ("", ".") else f"“{key}”"


# Jobs


@event("A worker has claimed a job.")
class JobClaimed(Happening):
    job_type: str
    index: str = ""
    goes_on: bool = False

    def sentence(self) -> str:
        begun = "Went on with" if self.goes_on else "Began"
        into = f" into the index {self.index}" if self.index else ""
        return f"{begun} the {self.job_type.replace('_', ' ')} sync{into}."


@event("A job goes on from the checkpoints of an earlier run.")
class JobResumed(Happening):
    partitions: int
    listed: int

    def sentence(self) -> str:
        done = amount(self.listed, "document was", "documents were")
        return f"Went on from the checkpoints of {amount(self.partitions, 'part')}; {done} done already."


@event("A job that may start waits; once for each reason.")
class JobWaits(Happening):
    why: str

    def sentence(self) -> str:
        return f"Waits: {self.why}"


@event("A job waits because the licence does not allow it.", level="warning")
class LicenceRefused(Happening):
    why: str

    def sentence(self) -> str:
        return f"The licence does not allow this: {self.why}"


@event("A job could not be claimed or begun.", level="warning")
class JobNotStarted(Happening):
    why: str

    def sentence(self) -> str:
        return f"Could not begin: {self.why}"


@event("A job has completed.")
class JobCompleted(Happening):
    indexed: int
    deleted: int
    unchanged: int
    failed: int
    size_bytes: int
    seconds: float

    def sentence(self) -> str:
        failed = f", {self.failed:,} failed" if self.failed else ""
        return (
            f"Completed after {span(self.seconds)}: {self.indexed:,} indexed ({size(self.size_bytes)}), "
            f"{self.deleted:,} deleted, {self.unchanged:,} unchanged{failed}."
        )


@event("A job has ended with an error.", level="error")
class JobFailed(Happening):
    why: str
    indexed: int = 0
    deleted: int = 0
    seconds: float = 0.0

    def sentence(self) -> str:
        return f"Ended with an error after {span(self.seconds)} ({self.indexed:,} indexed, {self.deleted:,} deleted): {self.why}"


@event("A job was suspended, to go on later.")
class JobSuspended(Happening):
    indexed: int = 0
    deleted: int = 0
    seconds: float = 0.0

    def sentence(self) -> str:
        return f"Suspended after {span(self.seconds)} with {self.indexed:,} indexed; goes on from there when claimed again."


@event("A job was canceled.")
class JobCancelled(Happening):
    indexed: int = 0
    deleted: int = 0
    seconds: float = 0.0

    def sentence(self) -> str:
        return f"Canceled after {span(self.seconds)}; {self.indexed:,} indexed and {self.deleted:,} deleted stay."


@event("A running job was taken away or deleted under its worker.", level="warning")
class JobLost(Happening):
    why: str

    def sentence(self) -> str:
        return f"This worker has lost the job: {self.why}"


@event("The janitor took a job from a worker that died.", level="warning")
class JobTakenOver(Happening):
    previous: str
    status: str

    def sentence(self) -> str:
        became = {"suspended": "goes on from its checkpoint", "error": "ended with an error"}.get(
            self.status, f"is {self.status} now"
        )
        return f"Its worker {self.previous or '(unknown)'} has died; the job {became}."


# The work


@event("The listing of a partition begins.")
class PartitionOpened(Happening):
    partition: str
    resumed: bool = False

    def sentence(self) -> str:
        return f"Goes on reading {part(self.partition)}." if self.resumed else f"Began to read {part(self.partition)}."


@event("A partition was listed to its end.")
class PartitionClosed(Happening):
    partition: str
    listed: int
    seconds: float = 0.0

    def sentence(self) -> str:
        return f"Read {part(self.partition)} to its end: {amount(self.listed, 'document')}."


@event("A partition could not be listed to its end, or holds parts that could not be read.", level="error")
class PartitionBroken(Happening):
    partition: str
    why: str
    listed: int = 0

    def sentence(self) -> str:
        return f"Could not read {part(self.partition)} to its end: {self.why}. Nothing of it is deleted."


@event("The source's partitions could not all be named.", level="error")
class SourceNotListed(Happening):
    why: str

    def sentence(self) -> str:
        return f"The source could not say what it consists of: {self.why}"


@event("A service has begun to list partitions of a job that another one runs.")
class HelpBegun(Happening):
    def sentence(self) -> str:
        return "Another service began to help with this job."


@event("A service has ended its help with a job that another one runs.")
class HelpEnded(Happening):
    why: str
    indexed: int = 0

    def sentence(self) -> str:
        return f"The help of another service ended with {self.indexed:,} indexed there: {self.why}"


@event("A service has taken the lease on a partition of a shared job.")
class LeaseTaken(Happening):
    partition: str

    def sentence(self) -> str:
        return f"Took {part(self.partition)} to read it."


@event("A lease that its holder had not renewed ran out, and the partition was taken from it.", level="warning")
class LeaseExpired(Happening):
    partition: str
    listed: int = 0

    def sentence(self) -> str:
        done = amount(self.listed, "document was", "documents were")
        return f"Who read {part(self.partition)} did not report any more; taken over where {done} done."


@event("A service has lost the lease on a partition: another one goes on with it.", level="warning")
class LeaseLost(Happening):
    partition: str

    def sentence(self) -> str:
        return f"Another service goes on with {part(self.partition)}; what was not noted here in time counts there."


@event("Bulk requests were answered; folded, every few seconds for each job.")
class BatchesSettled(Happening):
    requests: int
    documents: int
    size_bytes: int
    seconds: float
    slowest_s: float = 0.0

    def sentence(self) -> str:
        return f"Wrote {amount(self.documents, 'document')} ({size(self.size_bytes)}) in {amount(self.requests, 'request')}."


@event("A server was too busy (429), and the work waits.", level="warning")
class Throttled(Happening):
    by: str
    """Who: `Elasticsearch`, or the source's name."""
    status: int | None
    wait_s: float
    as_told: bool = False
    """The server said how long."""
    documents: int = 0

    def sentence(self) -> str:
        what = f"answered {self.status}" if self.status else "was too busy"
        about = f" for {amount(self.documents, 'document')}" if self.documents else ""
        return f"{self.by} {what}{about}; waited {span(self.wait_s)}{' as told' if self.as_told else ''}."


@event("A request failed in a way that may pass, and is sent again.", level="warning")
class Retried(Happening):
    what: str
    """`bulk`, `download` or `source`."""
    attempt: int
    wait_s: float
    why: str
    name: str = ""

    def sentence(self) -> str:
        subject = {"bulk": "A bulk request", "download": "A download", "source": "A request to the source"}.get(
            self.what, self.what
        )
        about = f" of {self.name}" if self.name else ""
        return f"{subject}{about} failed ({self.why.rstrip('.')}); tried again after {span(self.wait_s)}."


@event("A bulk request was too large and was cut in two.")
class BulkSplit(Happening):
    documents: int
    size_bytes: int
    why: str

    def sentence(self) -> str:
        return f"A request of {amount(self.documents, 'document')} ({size(self.size_bytes)}) was cut in two: {self.why}"


@event("A document finally failed and became a dead letter.", level="error")
class DeadLetter(Happening):
    what: str
    where: str
    why: str
    partition: str = ""
    document_id: str | None = None

    def sentence(self) -> str:
        return f"{self.what} failed at {self.where}: {self.why}"


@event("The next sync tries dead letters again, as somebody asked for it.")
class DeadLettersReplayed(Happening):
    documents: int

    def sentence(self) -> str:
        return f"Tries {amount(self.documents, 'document')} again that failed before."


@event("An unusual number of deletions waits for a person.", level="warning")
class DeletionsHeldBack(Happening):
    count: int
    why: str

    def sentence(self) -> str:
        return f"Held back {amount(self.count, 'deletion')}: {self.why}"


@event("Somebody has confirmed held-back deletions, and they were carried out.")
class DeletionsConfirmed(Happening):
    deleted: int
    changed_since: int = 0

    def sentence(self) -> str:
        kept = f"; {self.changed_since:,} were written again since and kept" if self.changed_since else ""
        return f"Somebody confirmed the deletions: {self.deleted:,} deleted{kept}."


@event("Documents that are gone from the source are deleted from the index.")
class DeletionsBegun(Happening):
    count: int

    def sentence(self) -> str:
        return (
            f"Deletes {amount(self.count, 'document')} that {'is' if self.count == 1 else 'are'} gone from the source."
        )


@event("A page of the source was compared with what is there.", is_kept=False)
class PageCompared(Happening):
    partition: str
    documents: int
    seconds: float

    def sentence(self) -> str:
        return f"Compared {amount(self.documents, 'document')} of {part(self.partition)}."


@event("A bulk request was answered, or failed.", is_kept=False)
class BulkAnswered(Happening):
    documents: int
    size_bytes: int
    seconds: float
    outcome: str
    """`ok`, `busy` or `failed`."""

    def sentence(self) -> str:
        return f"A request of {amount(self.documents, 'document')} took {span(self.seconds)} ({self.outcome})."


@event("The content of a document was read, and its text extracted.", is_kept=False)
class ContentRead(Happening):
    name: str
    size_bytes: int
    seconds: float
    outcome: str
    """`ok`, `too_large`, `no_text` or `failed`."""

    def sentence(self) -> str:
        return f"Read {self.name} in {span(self.seconds)} ({self.outcome})."


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


def listed() -> list[type[Happening]]:
    """All kinds, in the order of this page."""
    return list(KINDS.values())

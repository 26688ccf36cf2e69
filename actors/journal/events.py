"""Every event of jobs that must be told, once: its name, when it is told, its facts and its sentence.

The journal, the story of a job, the metrics, the traces and the written list in `docs/` are all derived from these classes. A class
with `is_kept = False` is told at the pace of requests: it feeds metrics and traces, and reaches the journal only folded.
"""

from __future__ import annotations

from .entry import Happening, event
from .words import amount, part, size, span

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

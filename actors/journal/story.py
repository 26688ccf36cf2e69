"""A job's events folded into the few lines that a person wants to read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, tzinfo

import attrs

from .entry import Entry, Happening, Level
from .events import BatchesSettled, DeadLetter, PartitionClosed, PartitionOpened, Retried, Throttled
from .words import amount, part, span

FOLDED = (BatchesSettled, Throttled, Retried, DeadLetter, PartitionOpened, PartitionClosed)
DEAD_LETTERS_NAMED = 3


@attrs.frozen
class Line:
    """One line of a story."""

    at: datetime
    text: str
    level: Level


def told(entries: Iterable[Entry]) -> list[Line]:
    """Tell what happened, oldest first. Neighbours of one kind become one line."""
    ordered = sorted(entries, key=lambda entry: (entry.at, entry.number))
    return [_told(run) for run in _runs(ordered)]


def _told(run: Sequence[Entry]) -> Line:
    return Line(run[0].at, _line([entry.happening for entry in run]), run[0].happening.level)


def story(entries: Iterable[Entry], *, zone: tzinfo | None = None) -> list[str]:
    """Write what `told` tells as text: `12:03 Elasticsearch answered 429; waited 40 s as told.`

    The date is told once for each day. Times are those of `zone`, or as they are.
    """
    narrator = Narrator(zone=zone)
    ordered = sorted(entries, key=lambda entry: (entry.at, entry.number))
    return [*narrator.add(ordered), *narrator.end()]


@attrs.define
class Narrator:
    """Tells a story of any length as it is read: takes entries in their order, and gives a line as soon as it is complete."""

    zone: tzinfo | None = None
    _run: list[Entry] = attrs.field(factory=list)
    _day: date | None = None

    def add(self, entries: Iterable[Entry]) -> list[str]:
        """Take what comes next; the last line waits for what may belong to it."""
        lines: list[str] = []
        for entry in entries:
            if self._run and not _belongs(self._run, entry):
                lines += self.end()
            self._run.append(entry)
        return lines

    def end(self) -> list[str]:
        """Nothing comes for now: give the last line."""
        if not self._run:
            return []
        line, self._run = _told(self._run), []
        at = _local(line.at, self.zone)
        is_new_day = self._day is not None and self._day != at.date()
        self._day = at.date()
        return [*([at.date().isoformat()] if is_new_day else []), f"{at:%H:%M} {line.text}"]


def _local(at: datetime, zone: tzinfo | None) -> datetime:
    return at if zone is None else at.astimezone(zone)


def _runs(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Neighbours that one line can tell."""
    run: list[Entry] = []
    for entry in entries:
        if run and not _belongs(run, entry):
            yield run
            run = []
        run.append(entry)
    if run:
        yield run


def _belongs(run: Sequence[Entry], entry: Entry) -> bool:
    first, happening = run[0].happening, entry.happening
    if not isinstance(happening, FOLDED) or type(happening) is not type(first):
        return False
    match first, happening:
        case Throttled(), Throttled():
            return (first.by, first.status) == (happening.by, happening.status)
        case Retried(), Retried():
            return (first.what, first.why) == (happening.what, happening.why)
        case DeadLetter(), DeadLetter():
            return (first.where, first.why) == (happening.where, happening.why)
    return True


def _line(happenings: Sequence[Happening]) -> str:
    first, count = happenings[0], len(happenings)
    if count == 1:
        return first.sentence()
    match first:
        case BatchesSettled():
            settled = [one for one in happenings if isinstance(one, BatchesSettled)]
            return BatchesSettled(
                requests=sum(one.requests for one in settled),
                documents=sum(one.documents for one in settled),
                size_bytes=sum(one.size_bytes for one in settled),
                seconds=sum(one.seconds for one in settled),
            ).sentence()
        case Throttled():
            waits = [one.wait_s for one in happenings if isinstance(one, Throttled)]
            what = f"answered {first.status}" if first.status else "was too busy"
            told = " as told" if first.as_told else ""
            return f"{first.by} {what} {count} times; waited up to {span(max(waits))}{told}."
        case Retried():
            waits = [one.wait_s for one in happenings if isinstance(one, Retried)]
            return attrs.evolve(first, wait_s=max(waits)).sentence().rstrip(".") + f"; {count} times in all."
        case DeadLetter():
            names = [one.what for one in happenings if isinstance(one, DeadLetter)]
            more = f" and {count - DEAD_LETTERS_NAMED:,} more" if count > DEAD_LETTERS_NAMED else ""
            return f"{', '.join(names[:DEAD_LETTERS_NAMED])}{more} failed at {first.where}: {first.why}"
        case PartitionOpened():
            keys = [one.partition for one in happenings if isinstance(one, PartitionOpened)]
            return f"Began to read {_named(keys)}."
        case PartitionClosed():
            closed = [one for one in happenings if isinstance(one, PartitionClosed)]
            total = amount(sum(one.listed for one in closed), "document")
            return f"Read {_named([one.partition for one in closed])} to their end: {total}."
    return first.sentence()


def _named(keys: Sequence[str]) -> str:
    if len(keys) <= DEAD_LETTERS_NAMED:
        return ", ".join(part(key) for key in keys)
    return f"{amount(len(keys), 'part')}, {part(keys[0])} first"

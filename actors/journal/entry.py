"""An entry of the journal: an event with its time and place, written and read again. What events there are stands in `events`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar, dataclass_transform

import attrs

Level: TypeAlias = Literal["info", "warning", "error"]


@attrs.frozen(kw_only=True)
class Happening:
    """Base of all events."""

    kind: ClassVar[str] = ""
    when: ClassVar[str] = ""
    """When it must be told, for the written list."""
    level: ClassVar[Level] = "info"
    is_kept: ClassVar[bool] = True

    def sentence(self) -> str:
        """What happened, for people, without the time."""
        raise NotImplementedError


KINDS: dict[str, type[Happening]] = {}
H = TypeVar("H", bound=Happening)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def event(when: str, *, level: Level = "info", is_kept: bool = True) -> Callable[[type[H]], type[H]]:
    def declare(wanted: type[H]) -> type[H]:
        made = attrs.frozen(kw_only=True)(wanted)
        name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in wanted.__name__).lstrip("_")
        made.kind, made.when, made.level, made.is_kept = name, when, level, is_kept
        KINDS[name] = made
        return made

    return declare


@attrs.frozen(kw_only=True)
class Entry:
    """One event with its place: when, which connector and job, which worker told it."""

    at: datetime
    happening: Happening
    connector_id: str = ""
    job_id: str = ""
    worker: str = ""
    number: int = 0
    """Counts what one worker tells, so that what happens in one instant keeps its order."""

    @property
    def kind(self) -> str:
        return self.happening.kind

    def as_document(self) -> dict[str, Any]:
        """As it is stored, and as `--format json` prints it."""
        return {
            "at": self.at.isoformat(),
            "kind": self.kind,
            "level": self.happening.level,
            "connector_id": self.connector_id,
            "job_id": self.job_id,
            "worker": self.worker,
            "number": self.number,
            "text": self.happening.sentence(),
            "facts": attrs.asdict(self.happening),
        }


def read_entry(document: Mapping[str, Any]) -> Entry:
    """Read a stored entry. One that a newer version wrote keeps its sentence. Raises `ValueError` if it is none at all."""
    try:
        at = datetime.fromisoformat(str(document["at"]))
        kind, facts = str(document["kind"]), dict(document.get("facts") or {})
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"This is no entry of the journal: {exc}") from None
    wanted = KINDS.get(kind)
    happening: Happening
    try:
        if wanted is None:
            raise TypeError(kind)
        known = {attribute.name for attribute in attrs.fields(wanted)}
        happening = wanted(**{name: value for name, value in facts.items() if name in known})
    except TypeError:
        happening = Foreign(name=kind, text=str(document.get("text") or kind))
    return Entry(
        at=at,
        happening=happening,
        connector_id=str(document.get("connector_id") or ""),
        job_id=str(document.get("job_id") or ""),
        worker=str(document.get("worker") or ""),
        number=int(document.get("number") or 0),
    )


@attrs.frozen(kw_only=True)
class Foreign(Happening):
    """An entry of a version that knows more kinds than this one."""

    kind: ClassVar[str] = "foreign"
    name: str
    text: str

    def sentence(self) -> str:
        return self.text

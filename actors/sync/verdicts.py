"""What follows from an answer to a bulk request, as data. Nothing here waits or sends.

Elasticsearch answers item by item. What it was too busy for is offered again, alone or with others; what it will never take is
dropped with its reason. An error about the whole request says nothing about its items: one that is too large is halved, and one
that is refused is halved as well until the document that spoils it stands alone.
"""

from __future__ import annotations

import random as _random
from collections.abc import Sequence
from typing import TypeAlias

import attrs

from ...protocol.store.errors import (
    Forbidden,
    NotElasticsearch,
    NotFound,
    NotSupported,
    Refused,
    StoreError,
    TooLarge,
    TooManyRequests,
    Unauthorised,
)

BUSY_STATUSES = frozenset({429, 502, 503, 504})
PAUSE_FIRST_S = 0.25
PAUSE_CAP_S = 10.0
REASON_LENGTH_MAX = 500


@attrs.frozen
class Refusal:
    """One document that Elasticsearch will not take, by its place in the request."""

    at: int
    status: int
    kind: str
    reason: str


@attrs.define
class Judged:
    """The outcome of a request item by item. Every place of the request is in exactly one of `accepted`, `busy`, `refused`."""

    accepted: list[int]
    seq_nos: list[int]
    """Of the accepted ones, in the same order; -1 where none was said."""
    results: list[str]
    busy: list[int]
    refused: list[Refusal]


Item: TypeAlias = "dict[str, dict[str, object]]"


def judge_items(operations: Sequence[str], items: Sequence[Item], *, has_errors: bool) -> Judged:
    """Read the items of an answer. Raises `ValueError` if there are not as many as operations."""
    if len(items) != len(operations):
        raise ValueError(f"Elasticsearch answered {len(items)} items to {len(operations)} operations.")
    if not has_errors:
        told = [next(iter(item.values())) for item in items]
        return Judged(
            list(range(len(items))),
            [each.get("_seq_no", -1) for each in told],  # type: ignore[misc]
            [each.get("result", "") for each in told],  # type: ignore[misc]
            [],
            [],
        )
    judged = Judged([], [], [], [], [])
    for at, item in enumerate(items):
        answer = next(iter(item.values()))
        status = int(answer.get("status", 0))  # type: ignore[call-overload]
        if 200 <= status < 300 or (status == 404 and operations[at] == "delete" and "error" not in answer):
            judged.accepted.append(at)
            judged.seq_nos.append(int(answer.get("_seq_no", -1)))  # type: ignore[call-overload]
            judged.results.append(str(answer.get("result", "")))
        elif status in BUSY_STATUSES:
            judged.busy.append(at)
        else:
            judged.refused.append(_refusal(at, status, answer.get("error")))
    return judged


def _refusal(at: int, status: int, error: object) -> Refusal:
    kind, reason = "", ""
    if isinstance(error, dict):
        kind, reason = str(error.get("type", "")), str(error.get("reason", ""))
        cause = error.get("caused_by")
        if isinstance(cause, dict) and cause.get("reason"):
            reason = f"{reason}: {cause['reason']}"
    elif error is not None:
        reason = str(error)
    return Refusal(at, status, kind or "refused", reason[:REASON_LENGTH_MAX] or f"status {status}")


@attrs.frozen
class SendAgain:
    """Wait, then send the whole request again."""

    why: str


@attrs.frozen
class Split:
    """Send the two halves instead."""

    why: str


@attrs.frozen
class Drop:
    """This single document is what the server refuses."""

    refusal: Refusal


@attrs.frozen
class GiveUp:
    """No document can be sent; the job ends."""

    why: str


Verdict: TypeAlias = "SendAgain | Split | Drop | GiveUp"
"""What follows when a request failed as a whole."""


def judge_error(error: StoreError, count: int) -> Verdict:
    """Decide what follows when a request of `count` documents failed as a whole."""
    match error:
        case Unauthorised() | Forbidden() | NotElasticsearch() | NotSupported() | NotFound():
            return GiveUp(str(error))
        case TooManyRequests():
            return SendAgain(str(error))
        case _ if error.retriable:
            return SendAgain(str(error))
        case TooLarge() | Refused():
            if count > 1:
                return Split(str(error))
            kind = error.kind or ("too_large" if isinstance(error, TooLarge) else "refused")
            return Drop(Refusal(0, error.status or 0, kind, str(error)[:REASON_LENGTH_MAX]))
        case _:
            return GiveUp(str(error))


def pause_s(attempt: int, random: _random.Random) -> float:
    """How long to wait before the next attempt: between half and all of a bound that doubles up to ten seconds."""
    bound = min(PAUSE_CAP_S, PAUSE_FIRST_S * 2.0 ** min(attempt - 1, 20))
    return bound * (0.5 + 0.5 * random.random())

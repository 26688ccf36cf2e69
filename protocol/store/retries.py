"""The one retry policy towards Elasticsearch: a pure judgement of each outcome. The transport obeys it."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias

import attrs

RETRIED_STATUSES = frozenset({429, 502, 503, 504})


@attrs.frozen
class RetryPolicy:
    """How long one call may try. Pauses are drawn between zero and a bound that grows from `first_s` by `factor` up to `cap_s`."""

    patience_s: float = attrs.field(default=120.0, validator=attrs.validators.ge(0))
    """Total time of one call, pauses included. No pause begins that would end later; 0 means a single attempt."""
    attempts_max: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(1)))
    first_s: float = attrs.field(default=0.5, validator=attrs.validators.gt(0))
    factor: float = attrs.field(default=2.0, validator=attrs.validators.ge(1))
    cap_s: float = attrs.field(default=20.0, validator=attrs.validators.gt(0))
    timeouts: bool = True
    """Whether a request that timed out is sent again."""


class Failing(enum.Enum):
    """Why there was no answer."""

    REFUSED = "connection refused"
    LOST = "connection lost"
    TIMED_OUT = "no answer in time"
    FINAL = "will not work next time either"


@attrs.frozen
class Answered:
    """The server answered with this status, and perhaps with a `Retry-After` header."""

    status: int
    retry_after: str | None = None


Outcome: TypeAlias = Answered | Failing


@attrs.frozen
class Done:
    """The outcome is final; it may well be a refusal."""


@attrs.frozen
class Retry:
    """Send the request again after a pause."""

    after_s: float
    why: str


@attrs.frozen
class Drop:
    """The outcome could change with time, but the policy's patience has ended."""

    why: str


Verdict: TypeAlias = Done | Retry | Drop


def retry_after_s(text: str | None, now: datetime) -> float | None:
    """Read a `Retry-After` header, seconds or a date. Anything else, or a moment that has passed, counts as absent."""
    if not text:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        then = parsedate_to_datetime(text)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    seconds = (then - now).total_seconds()
    return seconds if seconds > 0 else None


def judge(
    outcome: Outcome, *, attempt: int, elapsed_s: float, jitter: float, policy: RetryPolicy, now: datetime
) -> Verdict:
    """Decide what follows the `attempt`-th attempt (from 1) of a call that began `elapsed_s` ago. `jitter` is in [0, 1)."""
    asked_s: float | None = None
    match outcome:
        case Answered(status=status):
            if status not in RETRIED_STATUSES:
                return Done()
            asked_s = retry_after_s(outcome.retry_after, now)
            why = f"HTTP status {status}"
        case Failing.FINAL:
            return Done()
        case Failing.TIMED_OUT if not policy.timeouts:
            return Done()
        case _:
            why = outcome.value
    if policy.attempts_max is not None and attempt >= policy.attempts_max:
        return Drop(f"{why} at attempt {attempt} of {policy.attempts_max}")
    # Beyond the 60th doubling a float would overflow; the cap has long been reached by then.
    bound_s = min(policy.cap_s, policy.first_s * policy.factor ** min(attempt - 1, 60))
    pause_s = jitter * bound_s
    if asked_s is not None:
        # Never earlier than asked; the jitter on top keeps many callers from coming back in one moment.
        pause_s = asked_s + jitter * policy.first_s
    if elapsed_s + pause_s > policy.patience_s or policy.patience_s == 0:
        return Drop(f"{why}, still after {elapsed_s:.0f} s and {attempt} attempts")
    return Retry(pause_s, why)

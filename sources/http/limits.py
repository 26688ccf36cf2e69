"""How fast a source may ask: one limit for each account at a host, shared by all connectors that use it.

A host tells its limit in one of three ways, and all of them are listened to: by what is left until when (`ratelimit-remaining` and
its relatives), by refusing and saying for how long (`retry-after`), or by refusing only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from weakref import WeakValueDictionary

import attrs
import trio

from ...runtime import monotonic

SHARE_KEPT = 0.95
"""Of the rate at which a host refused, so much is taken for granted."""
EVIDENCE = 50
"""So many requests say how many a host bears in a time."""
COUNTED_S = 60.0
PROBE_S = 60.0
"""Beyond that rate it is tried again whether the host bears more, by a hundredth after each such time."""
UNKNOWN_PER_SECOND = 100.0
HOLD_S = 1.0
"""How long nobody asks a host that refuses without saying for how long."""
QUOTAS_MAX = 16
QUOTA_S_MAX = 3600.0
"""After so long a host is asked again, whatever it said: its clock or ours may be wrong."""


@attrs.frozen
class Quota:
    """What a host says of a limit: how many requests are left, and when they become more again."""

    remaining: int
    left_s: float
    """Seconds until then."""
    limit: int | None = None
    resource: str = ""
    """A host may count some kinds of requests apart."""


def quota_of(headers: Mapping[str, str], at_epoch_s: float) -> Quota | None:
    """Read the quota that an answer tells of, None if it tells of none.

    `X-RateLimit-*` is what most services say, `RateLimit-*` the draft of the IETF. The reset is given in seconds from now, in
    seconds or milliseconds since 1970, or as a date. What makes no sense is passed over.
    """
    for prefix in ("x-ratelimit-", "ratelimit-"):
        remaining = whole_number(headers.get(f"{prefix}remaining", ""))
        left_s = _seconds_until(headers.get(f"{prefix}reset", ""), at_epoch_s)
        if remaining is not None and left_s is not None:
            limit = whole_number(headers.get(f"{prefix}limit", "").split(",")[0].strip())
            resource = headers.get(f"{prefix}resource", "")
            return Quota(remaining, min(left_s, QUOTA_S_MAX), limit, resource)
    return None


def whole_number(text: str) -> int | None:
    """Read a number from a header; None if it is none, or longer than any count."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _seconds_until(reset: str, at_epoch_s: float) -> float | None:
    try:
        number = float(reset)
    except ValueError:
        try:
            moment = datetime.fromisoformat(reset)
        except ValueError:
            return None
        return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - at_epoch_s)
    if not math.isfinite(number) or number < 0:
        return None
    if number > 1e11:
        number /= 1000
    return max(0.0, number - at_epoch_s) if number > 1e9 else number


@attrs.frozen
class _Left:
    remaining: int
    until_s: float
    limit: int
    """At least so many there are at the beginning."""


class TokenBucket:
    """Lets `per_second` requests through on average, and `burst` at once; adapts to what the host bears.

    A refusal holds everybody back as long as the host asked, and sets the rate to what it had borne until then; from there it is
    tried again only slowly. A quota is used freely down to its half, and the rest of it evenly until it is renewed. First come,
    first served.
    """

    def __init__(self, per_second: float = math.inf, burst: int = 10) -> None:
        if per_second <= 0 or burst < 1:
            raise ValueError("a token bucket needs a rate above 0 and a burst of at least 1")
        self._highest = per_second
        self.per_second = per_second
        self._burst = burst
        self._tokens = float(burst)
        self._filled_s: float | None = None
        self._closed_until_s = -math.inf
        self._turn = trio.Lock()
        self._taken = 0.0
        self._counts_since_s: float | None = None
        self._throttled_s = -math.inf
        self._probed_s = -math.inf
        self._ceiling = math.inf
        self._quotas: dict[str, _Left] = {}
        """By resource."""
        self.throttled_count = 0

    async def take(self) -> float:
        """Wait for a token, and return the time at which it was had. Cancelled: none was taken."""
        async with self._turn:
            while True:
                moment_s = monotonic()
                wait_s = self._wait_s(moment_s)
                if wait_s <= 0:
                    break
                await trio.sleep(wait_s)
            self._tokens -= 1
            self._count(moment_s)
            return moment_s

    def wait_s(self) -> float:
        """How long the next one waits at least."""
        return max(0.0, self._wait_s(monotonic()))

    def _count(self, moment_s: float) -> None:
        self._taken += 1
        if self._counts_since_s is None:
            self._counts_since_s = moment_s
        elif moment_s - self._counts_since_s > COUNTED_S:
            # What was long ago counts less and less, so that a quiet hour does not hide how fast it is now.
            self._counts_since_s += (moment_s - self._counts_since_s) / 2
            self._taken /= 2

    def throttled(self, retry_after_s: float | None, taken_s: float = math.inf) -> None:
        """The host has refused a request that had its token at `taken_s`: slow down, and stay away for as long as it asked."""
        now_s = monotonic()
        self.throttled_count += 1
        hold_s = HOLD_S if retry_after_s is None else retry_after_s
        self._closed_until_s = max(self._closed_until_s, now_s + hold_s)
        if taken_s <= self._throttled_s:
            # It was under way already when the host refused another one, and says nothing new.
            return
        since_s = now_s if self._counts_since_s is None else self._counts_since_s
        elapsed_s = now_s - since_s + (retry_after_s or 0.0)
        share = 0.5
        if self._taken < EVIDENCE or elapsed_s <= 0:
            # So few requests cannot have used up a limit: others did, or the host has troubles of its own.
            self._ceiling = min(self.per_second, UNKNOWN_PER_SECOND)
        elif retry_after_s is None:
            # It bears the present rate no more; how much it bore on the way here says nothing, for that was slower.
            self._ceiling = self.per_second if math.isfinite(self.per_second) else self._taken / elapsed_s
        else:
            self._ceiling, share = min(self.per_second, self._taken / elapsed_s), SHARE_KEPT
        self.per_second = max(0.1, self._ceiling * share)
        self._tokens, self._taken, self._counts_since_s = 0.0, 0.0, None
        self._filled_s = max(now_s, self._closed_until_s)
        self._throttled_s = self._probed_s = now_s

    def succeeded(self) -> None:
        """The host has answered: go a little faster again, up to where it refused, and then only now and then."""
        if self.per_second >= self._highest:
            return
        if self.per_second < self._ceiling * SHARE_KEPT:
            self.per_second = min(self._ceiling * SHARE_KEPT, self.per_second * 1.02 + 0.01)
        elif monotonic() - self._probed_s >= PROBE_S:
            self._probed_s = monotonic()
            self.per_second = min(self._highest, self.per_second * 1.01)

    def told(self, quota: Quota) -> None:
        """The host has said what is left."""
        if len(self._quotas) >= QUOTAS_MAX and quota.resource not in self._quotas:
            return
        known = self._quotas.get(quota.resource)
        limit = max(quota.limit or 0, quota.remaining, known.limit if known and quota.limit is None else 0)
        self._quotas[quota.resource] = _Left(quota.remaining, monotonic() + quota.left_s, limit)

    def _rate(self, now_s: float) -> float:
        rate = self.per_second
        for resource, left in list(self._quotas.items()):
            if left.until_s <= now_s:
                del self._quotas[resource]
            elif left.remaining <= 0:
                self._closed_until_s = max(self._closed_until_s, left.until_s)
            elif left.remaining * 2 <= left.limit:
                rate = min(rate, left.remaining / (left.until_s - now_s))
        return rate

    def _wait_s(self, now_s: float) -> float:
        rate = self._rate(now_s)
        if now_s < self._closed_until_s:
            return self._closed_until_s - now_s
        if not math.isfinite(rate):
            self._tokens, self._filled_s = float(self._burst), now_s
            return 0.0
        if self._filled_s is not None:
            # Bursts are for hosts that bear them: not for one that has refused, nor for the rest of a quota.
            most = float(self._burst) if rate == self._highest else 1.0
            self._tokens = min(most, self._tokens + max(0.0, now_s - self._filled_s) * rate)
        self._filled_s = now_s
        # A wait that is computed from a rate may end a rounding error too early.
        return 0.0 if self._tokens >= 1 - 1e-9 else (1 - self._tokens) / rate


_shared: trio.lowlevel.RunVar[WeakValueDictionary[tuple[str, str], TokenBucket]] = trio.lowlevel.RunVar("token_buckets")


def shared_bucket(host: str, account: str) -> TokenBucket:
    """The bucket of everybody in this process who talks to a host as one account, kept as long as somebody holds it."""
    try:
        buckets = _shared.get()
    except LookupError:
        buckets = WeakValueDictionary()
        _shared.set(buckets)
    bucket = buckets.get((host, account))
    if bucket is None:
        bucket = buckets[host, account] = TokenBucket()
    return bucket

"""The retry policy is one pure function; every verdict can be tried without a network."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol.store.retries import (
    RETRIED_STATUSES,
    Answered,
    Done,
    Drop,
    Failing,
    Outcome,
    Retry,
    RetryPolicy,
    Verdict,
    judge,
    retry_after_s,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
POLICY = RetryPolicy(patience_s=60, first_s=1, factor=2, cap_s=8)


def verdict(
    outcome: Outcome, attempt: int = 1, elapsed_s: float = 0, jitter: float = 0.5, policy: RetryPolicy = POLICY
) -> Verdict:
    return judge(outcome, attempt=attempt, elapsed_s=elapsed_s, jitter=jitter, policy=policy, now=NOW)


@pytest.mark.parametrize("status", [200, 201, 400, 401, 403, 404, 409, 413, 500, 501])
def test_a_final_status_is_done(status: int) -> None:
    assert verdict(Answered(status, "1")) == Done()


@pytest.mark.parametrize("status", sorted(RETRIED_STATUSES))
def test_an_overloaded_server_is_asked_again(status: int) -> None:
    assert verdict(Answered(status)) == Retry(0.5, f"HTTP status {status}")


@pytest.mark.parametrize("failing", [Failing.REFUSED, Failing.LOST, Failing.TIMED_OUT])
def test_a_missing_answer_is_asked_for_again(failing: Failing) -> None:
    assert verdict(failing) == Retry(0.5, failing.value)


def test_what_cannot_change_is_not_tried_again() -> None:
    assert verdict(Failing.FINAL) == Done()


def test_timeouts_are_final_if_the_policy_says_so() -> None:
    assert verdict(Failing.TIMED_OUT, policy=RetryPolicy(timeouts=False)) == Done()


def test_pauses_grow_to_the_cap() -> None:
    pauses = [verdict(Failing.LOST, attempt=attempt, jitter=1.0) for attempt in range(1, 7)]
    assert [pause.after_s for pause in pauses if isinstance(pause, Retry)] == [1, 2, 4, 8, 8, 8]


def test_a_server_that_names_a_time_is_obeyed() -> None:
    assert verdict(Answered(429, "20"), jitter=0.25) == Retry(20.25, "HTTP status 429")
    later = "Tue, 24 Nov 2026 12:00:30 GMT"
    assert verdict(Answered(503, later), jitter=0.0) == Retry(30.0, "HTTP status 503")


def test_a_named_time_beyond_the_patience_ends_the_call_at_once() -> None:
    assert isinstance(verdict(Answered(429, "61"), jitter=0.0), Drop)


@pytest.mark.parametrize("header", [None, "", "soon", "-5", "1.5", "Mon, 01 Jan 2001 00:00:00 GMT", "٣"])
def test_an_unusable_header_counts_as_absent(header: str | None) -> None:
    assert retry_after_s(header, NOW) is None


def test_attempts_are_bounded_too() -> None:
    assert isinstance(verdict(Failing.LOST, attempt=2, policy=RetryPolicy(attempts_max=2)), Drop)
    assert isinstance(verdict(Failing.LOST, attempt=1, policy=RetryPolicy(attempts_max=2)), Retry)


def test_no_patience_means_one_attempt() -> None:
    assert isinstance(verdict(Failing.LOST, policy=RetryPolicy(patience_s=0), jitter=0.0), Drop)


@given(
    st.one_of(
        st.sampled_from(Failing),
        st.builds(Answered, st.integers(100, 599), st.one_of(st.none(), st.text(max_size=30), st.just("7"))),
    ),
    st.integers(1, 10_000),
    st.floats(0, 1e6),
    st.floats(0, 1, exclude_max=True),
)
def test_no_call_outlives_its_patience(outcome: Outcome, attempt: int, elapsed_s: float, jitter: float) -> None:
    decided = verdict(outcome, attempt, elapsed_s, jitter)
    if isinstance(decided, Retry):
        assert decided.after_s >= 0
        assert elapsed_s + decided.after_s <= POLICY.patience_s


@given(st.text(max_size=60))
def test_any_header_text_is_read_or_ignored(text: str) -> None:
    seconds = retry_after_s(text, NOW)
    assert seconds is None or seconds >= 0

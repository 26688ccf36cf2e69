"""The official client's transport with Callboard's retry policy in place of its own, and a way to pass bytes through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import attrs
import structlog
import trio
from elastic_transport import AsyncTransport, HttpHeaders, OpenTelemetrySpan, TransportApiResponse, TransportError
from elastic_transport._node import NodeApiResponse
from elastic_transport.client_utils import DEFAULT, DefaultType

from ...runtime import monotonic, now, random
from .retries import Answered, Done, Drop, Failing, Outcome, Retry, RetryPolicy, judge
from .translation import UNANSWERED, failing

log = structlog.get_logger(__name__)


@attrs.frozen
class Retrying:
    """Told to `on_retry` before each pause: what is tried again, why, and after which pause."""

    request: str
    attempt: int
    after_s: float
    why: str


class StoreTransport(AsyncTransport):
    """One request at a time per call, tried again as `policy` says. The client's own retries are never used: layers multiply."""

    policy: RetryPolicy = RetryPolicy()
    on_retry: Callable[[Retrying], None] | None = None

    async def perform_request(  # type: ignore[override]
        self,
        method: str,
        target: str,
        *,
        body: Any = None,
        headers: Mapping[str, Any] | DefaultType = DEFAULT,
        max_retries: int | DefaultType = DEFAULT,
        retry_on_status: Collection[int] | DefaultType = DEFAULT,
        retry_on_timeout: bool | DefaultType = DEFAULT,
        retry_backoff_base: float | DefaultType = DEFAULT,
        retry_backoff_cap: float | DefaultType = DEFAULT,
        request_timeout: float | DefaultType | None = DEFAULT,
        client_meta: tuple[tuple[str, str], ...] | DefaultType = DEFAULT,
        otel_span: OpenTelemetrySpan | DefaultType = DEFAULT,
    ) -> TransportApiResponse:
        """Called by the official client. Of its retry options only `max_retries` counts, as a lower bound on attempts."""
        request_headers = HttpHeaders() if isinstance(headers, DefaultType) else HttpHeaders(headers)
        payload: bytes | None = None
        if body is not None:
            payload = self.serializers.dumps(body, mimetype=request_headers["content-type"])
        policy = self.policy
        if not isinstance(max_retries, DefaultType):
            policy = attrs.evolve(policy, attempts_max=max_retries + 1)
        answer = await self.perform_raw(
            method, target, payload, headers=request_headers, request_timeout=request_timeout, policy=policy
        )
        warning = answer.meta.headers.get("warning")
        if warning is not None:
            # The client would make a Python warning of it; it is the operator who should read it.
            log.debug("elasticsearch.warning", method=method, path=target.partition("?")[0], warning=warning)
            del answer.meta.headers["warning"]
        decoded = self.serializers.loads(answer.body, answer.meta.mimetype) if method != "HEAD" else None
        return TransportApiResponse(answer.meta, decoded)

    async def perform_raw(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        headers: HttpHeaders,
        request_timeout: float | DefaultType | None = DEFAULT,
        policy: RetryPolicy | None = None,
    ) -> NodeApiResponse:
        """Send bytes, return bytes, trying again as the policy says. Raises `TransportError` if no answer came.

        Every status counts as an answer. Cancelled: whether the request was carried out is unknown.
        """
        policy = policy or self.policy
        _ask_in_plain_json(headers)
        started_s = monotonic()
        attempt = unanswered = 0
        while True:
            attempt += 1
            node: Any = self.node_pool.get()
            answer: NodeApiResponse | None = None
            failure: TransportError | None = None
            outcome: Outcome
            try:
                answer = await _perform(node.perform_request, method, target, body, headers, request_timeout)
                outcome = Answered(answer.meta.status, answer.meta.headers.get("retry-after"))
            except TransportError as exc:
                failure = exc
                outcome = failing(exc)
            verdict = judge(
                outcome,
                attempt=attempt,
                elapsed_s=monotonic() - started_s,
                jitter=random().random(),
                policy=policy,
                now=now(),
            )
            match verdict:
                case Done() | Drop():
                    if failure is not None:
                        raise failure
                    assert answer is not None
                    if unanswered:
                        answer.meta.headers[UNANSWERED] = str(unanswered)
                    return answer
                case Retry(after_s=after_s, why=why):
                    unanswered += _may_have_been_carried_out(outcome)
                    request = f"{method} {target.partition('?')[0]}"
                    log.info("elasticsearch.retry", request=request, attempt=attempt, after_s=after_s, why=why)
                    if self.on_retry is not None:
                        self.on_retry(Retrying(request, attempt, after_s, why))
                    await trio.sleep(after_s)


def _may_have_been_carried_out(outcome: Outcome) -> bool:
    match outcome:
        case Answered(status=status):
            # What says 502, 503 or 504 may stand between us and a server that did as it was told.
            return status != 429
        case _:
            return outcome is not Failing.REFUSED


async def _perform(
    perform: Callable[..., Awaitable[NodeApiResponse]],
    method: str,
    target: str,
    body: bytes | None,
    headers: HttpHeaders,
    request_timeout: float | DefaultType | None,
) -> NodeApiResponse:
    return await perform(method, target, body=body, headers=headers, request_timeout=request_timeout)


def _ask_in_plain_json(headers: HttpHeaders) -> None:
    """Undo the client's versioned media types, which an Elasticsearch of another major version refuses.

    Plain types mean "your own version's format"; all that Callboard uses looks the same in 8.x and 9.x.
    """
    for name in ("accept", "content-type"):
        value = headers.get(name)
        if value is not None and value.startswith("application/vnd.elasticsearch+"):
            headers[name] = "application/" + value.partition("+")[2].partition(";")[0]

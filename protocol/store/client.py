"""Open a connection to Elasticsearch, or to a node inside this process, and know who answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import attrs
import orjson
import structlog
import trio
from elastic_transport import ApiResponse, HttpHeaders, TransportError
from elasticsearch import ApiError, AsyncElasticsearch

from ... import __version__
from ...runtime import monotonic
from .embedded_node import embedded_node_class
from .errors import Forbidden, NotElasticsearch, StoreError
from .lean_node import LeanNode
from .retries import RetryPolicy
from .target import Target
from .translation import error_of_answer, error_of_api_error, error_of_failure, without_secrets
from .transport import Retrying, StoreTransport

CLOSE_WAIT_S = 2.0
HELLO_WAIT_S = 10.0
"""How long the first question may take, if the caller is not prepared to wait longer."""
PAUSE_S_MAX = 30.0

log = structlog.get_logger(__name__)


@attrs.frozen
class ServerInfo:
    """What `GET /` says."""

    version: str
    flavor: str
    cluster_name: str

    @property
    def is_serverless(self) -> bool:
        return self.flavor == "serverless"


class StoreClient(AsyncElasticsearch):
    """The official client, whose errors arrive as `StoreError`. Namespaces (`indices`, `connector`, ...) do the same."""

    _where: str = "Elasticsearch"
    _secrets: tuple[str, ...] = ()

    async def perform_request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        endpoint_id: str | None = None,
        path_parts: Mapping[str, Any] | None = None,
    ) -> ApiResponse[Any]:
        """Called by every method of the client. Raises `StoreError` and nothing of the client's own."""
        request = f"{method} {path}"
        try:
            return await super().perform_request(
                method,
                path,
                params=params,
                headers=headers,
                body=body,
                endpoint_id=endpoint_id,
                path_parts=path_parts,
            )
        except ApiError as exc:
            raise self.cleaned(error_of_api_error(exc, where=self._where, request=request)) from None
        except TransportError as exc:
            raise self.cleaned(error_of_failure(exc, where=self._where, request=request)) from exc

    def options(self, **options: Any) -> Self:
        """As in the official client; the copy keeps the name of the place and what must not be shown."""
        copy = super().options(**options)
        copy._where, copy._secrets = self._where, self._secrets
        return copy

    def cleaned(self, error: StoreError) -> StoreError:
        """The same error without any secret in its text."""
        error.args = (without_secrets(str(error), self._secrets),)
        return error


class Wire:
    """The way to the server: the official client for calls where comfort counts, bytes for those where speed counts."""

    def __init__(self, target: Target, on_retry: Callable[[Retrying], None] | None = None) -> None:
        self.target = target
        node_class: Any = LeanNode
        inside = target.through if target.embedded is None else target.embedded
        if inside is not None:
            node_class = embedded_node_class(inside)
        elif target.transport == "httpx":
            node_class = "httpxasync"
        self.client = StoreClient(
            hosts=[target.node_config(__version__)],
            node_class=node_class,
            transport_class=StoreTransport,
        )
        self.client._where, self.client._secrets = target.shown, target.secrets()
        transport = self.client.transport
        assert isinstance(transport, StoreTransport)
        self.transport = transport
        for node in transport.node_pool.all():
            # The client writes its own name over whatever the configuration says.
            node.headers["user-agent"] = target.user_agent(__version__)
        self.transport.policy = target.retries
        self.transport.on_retry = on_retry

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        media_type: str = "application/json",
        policy: RetryPolicy | None = None,
    ) -> bytes:
        """Send bytes and return the body of a good answer. Raises `StoreError`, also for a refusal."""
        headers = HttpHeaders({"accept": "application/json"})
        if body is not None:
            headers["content-type"] = media_type
        request = f"{method} {path.partition('?')[0]}"
        try:
            answer = await self.transport.perform_raw(method, path, body, headers=headers, policy=policy)
        except TransportError as exc:
            raise self.client.cleaned(error_of_failure(exc, where=self.target.shown, request=request)) from exc
        if 200 <= answer.meta.status < 300:
            if answer.meta.headers.get("x-elastic-product") != "Elasticsearch":
                raise NotElasticsearch(f"{self.target.shown} answers, but not like Elasticsearch. Look at the address.")
            return answer.body
        told: Any
        try:
            told = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            told = answer.body
        raise self.client.cleaned(
            error_of_answer(answer.meta.status, answer.meta.headers, told, where=self.target.shown, request=request)
        )

    async def call(self, method: str, path: str, body: Any = None, *, max_retries: int | None = None) -> Any:
        """Call an API that the official client has no method for, or warns about as a preview. Raises `StoreError`."""
        headers = {"accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        client = self.client if max_retries is None else self.client.options(max_retries=max_retries)
        return (await client.perform_request(method, path, headers=headers, body=body)).body

    async def hello(self, request_timeout_s: float = HELLO_WAIT_S) -> ServerInfo | None:
        """Ask the server who it is, once. None if these credentials may not know, which is no reason to refuse work.

        Raises `StoreError`.
        """
        try:
            told = (await self.client.options(max_retries=0, request_timeout=request_timeout_s).info()).body
        except Forbidden:
            return None
        version = told.get("version")
        if not isinstance(version, dict) or not isinstance(version.get("number"), str):
            raise NotElasticsearch(f"{self.target.shown} answers, but does not say which Elasticsearch it is.")
        return ServerInfo(
            version=version["number"],
            flavor=str(version.get("build_flavor", "default")),
            cluster_name=str(told.get("cluster_name", "")),
        )

    async def wait_until_ready(self, wait_s: float, *, first_s: float = 1.0, factor: float = 2.0) -> ServerInfo | None:
        """Ask until the server answers, for at most about `wait_s`, with pauses that grow from `first_s` by `factor`.

        Raises at once what waiting cannot cure (wrong credentials, no Elasticsearch), and the last error when time is up.
        """
        deadline_s = monotonic() + wait_s
        pause_s = first_s
        while True:
            try:
                return await self.hello(request_timeout_s=max(deadline_s - monotonic(), HELLO_WAIT_S))
            except StoreError as exc:
                left_s = deadline_s - monotonic()
                if not exc.retriable or left_s <= 0:
                    raise
                log.info("elasticsearch.awaited", why=str(exc), left_s=round(left_s, 1))
            await trio.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * factor, PAUSE_S_MAX)


@asynccontextmanager
async def open_wire(target: Target, on_retry: Callable[[Retrying], None] | None = None) -> AsyncIterator[Wire]:
    """Hold a `Wire` open; leaving closes its connections."""
    wire = Wire(target, on_retry)
    try:
        yield wire
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_WAIT_S):
            await wire.client.close()

"""TLS through the whole store, with an authority made for the test: trusted, untrusted, unverified, wrong scheme."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
import trio

from callboard.protocol.store import RetryPolicy, StoreError, Target, UntrustedCertificate, open_store

from .conftest import HELLO, PRODUCT


@attrs.frozen
class Certificate:
    authority: Path
    key: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory, server_missing: Any) -> Certificate:
    """A self-signed certificate for 127.0.0.1."""
    openssl = shutil.which("openssl")
    if openssl is None:
        server_missing("the openssl command", "sudo apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    found = Certificate(folder / "ca.pem", folder / "key.pem")
    made = ["-keyout", str(found.key), "-out", str(found.authority), "-days", "2", "-subj", "/CN=127.0.0.1"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *made],
        check=True,
        capture_output=True,
    )
    return found


@asynccontextmanager
async def tls_server(certificate: Certificate, connections: list[int] | None = None) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.authority, certificate.key)
    body = json.dumps(HELLO).encode()
    head = f"HTTP/1.1 200 OK\r\nx-elastic-product: {PRODUCT['x-elastic-product']}\r\n"
    answer = f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        if connections is not None:
            connections.append(1)
        pending = b""
        try:
            async for data in stream:
                pending += data
                while b"\r\n\r\n" in pending:
                    pending = pending.partition(b"\r\n\r\n")[2]
                    await stream.send_all(answer)
        except trio.BrokenResourceError:
            return

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1", https_compatible=True)
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield listeners[0].transport_listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("transport", ["lean", "httpx"])
async def test_a_trusted_authority_is_trusted(certificate: Certificate, transport: Literal["lean", "httpx"]) -> None:
    connections: list[int] = []
    async with tls_server(certificate, connections) as port:
        target = Target(f"https://127.0.0.1:{port}", ca_certs=certificate.authority, transport=transport)
        async with open_store(target) as store:
            for _ in range(3):
                assert (await store.client.info())["cluster_name"] == "scripted"
                await trio.sleep(0.02)
    assert len(connections) == 1


@pytest.mark.parametrize("transport", ["lean", "httpx"])
async def test_an_unknown_authority_is_refused_with_the_remedy(
    certificate: Certificate, transport: Literal["lean", "httpx"]
) -> None:
    async with tls_server(certificate) as port:
        with pytest.raises(UntrustedCertificate, match=r"not trusted \(self.signed certificate.*ca_certs"):
            async with open_store(Target(f"https://127.0.0.1:{port}", transport=transport), wait_s=60):
                raise AssertionError


async def test_verification_can_be_switched_off(certificate: Certificate) -> None:
    async with (
        tls_server(certificate) as port,
        open_store(Target(f"https://127.0.0.1:{port}", verify_certs=False)) as store,
    ):
        assert store.server is not None


async def test_a_plain_request_to_a_tls_port_is_an_error_and_no_hang(certificate: Certificate) -> None:
    async with tls_server(certificate) as port:
        target = Target(f"http://127.0.0.1:{port}", retries=RetryPolicy(patience_s=0))
        with pytest.raises(StoreError):
            async with open_store(target):
                raise AssertionError

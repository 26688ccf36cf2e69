"""Before a service begins: is everything there that it needs? Every finding says what was looked at and what to do."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Literal

import attrs
import structlog
import trio

from ..protocol.indices import CONNECTORS_INDEX, JOBS_INDEX
from ..protocol.store import Forbidden, Store, StoreError
from ..protocol.versions import PROTOCOL_VERSION, InvalidVersion, compare
from .configuration import ExtractionServiceSettings, Settings
from .schedule_plan import ACCESS_CONTROL_LICENCE

log = structlog.get_logger(__name__)

EXTRACTION_ANSWER_S = 5.0
CLUSTER_PRIVILEGES = ("monitor", "manage_connector")
INDEX_PRIVILEGES = ("read", "write", "create_index")
PLACEHOLDER = "changeme"
FIPS_FORBIDDEN_CIPHER = "RC4-SHA"
NEEDS_NTLM = frozenset({"network_drive", "sharepoint_server"})
"""Sources whose protocol needs MD4, which FIPS forbids."""

Verdict = Literal["ok", "warning", "problem"]


@attrs.frozen
class Finding:
    """One thing that was looked at."""

    subject: str
    verdict: Verdict
    text: str


class PreflightFailed(Exception):
    """The service cannot begin; `findings` has every reason."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__(
            " ".join(f"{finding.subject}: {finding.text}" for finding in self.findings if finding.verdict == "problem")
        )


async def preflight(store: Store, settings: Settings, *, ignore_version: bool = False) -> tuple[Finding, ...]:
    """Look at everything, create the protocol's indices, and return what was found, all of it good enough to begin.

    `store` was opened after waiting for Elasticsearch. Raises `PreflightFailed` and `StoreError`. Cancelled: an index may
    have been created.
    """
    findings = [*_configuration(settings), *fips(settings.service.fips_mode), _version(store, ignore_version)]
    _refuse(findings)
    findings += await _indices(store, settings)
    findings.append(await _licence(store))
    findings.append(await _privileges(store))
    findings += await _extraction(settings.extraction_service)
    for finding in findings:
        if finding.verdict != "ok":
            log.warning("preflight", subject=finding.subject, text=finding.text)
    _refuse(findings)
    return tuple(findings)


def _refuse(findings: list[Finding]) -> None:
    if any(finding.verdict == "problem" for finding in findings):
        raise PreflightFailed(findings)


def _configuration(settings: Settings) -> Iterable[Finding]:
    service = settings.service
    if not service.worker_mode and not settings.connectors:
        yield Finding(
            "Configuration",
            "problem",
            "no connector is named. List them under `connectors`, or switch `service.worker_mode` on.",
        )
    for connector in settings.connectors:
        if PLACEHOLDER in (connector.connector_id, connector.service_type, connector.api_key):
            yield Finding(
                "Configuration",
                "problem",
                f"the connector {connector.connector_id!r} still has the placeholder {PLACEHOLDER!r}. Write its real values.",
            )


def fips(wanted: bool) -> Iterable[Finding]:
    """Tell whether this Python keeps to FIPS, if the configuration wants it."""
    if not wanted:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(FIPS_FORBIDDEN_CIPHER)
    except ssl.SSLError:
        yield Finding("FIPS", "ok", f"{ssl.OPENSSL_VERSION} refuses {FIPS_FORBIDDEN_CIPHER}")
        return
    yield Finding(
        "FIPS",
        "problem",
        f"{ssl.OPENSSL_VERSION} accepts the cipher {FIPS_FORBIDDEN_CIPHER}, so it is not in FIPS mode. "
        "Run with an OpenSSL that is, or switch `service.fips_mode` off.",
    )


def _version(store: Store, ignored: bool) -> Finding:
    server = store.server
    if server is None:
        return Finding(
            "Version", "warning", "these credentials may not ask for it. Grant them the cluster privilege `monitor`."
        )
    try:
        verdict = compare(PROTOCOL_VERSION, server.version, build_flavor=server.flavor)
    except InvalidVersion as problem:
        return Finding("Version", "warning" if ignored else "problem", str(problem))
    if verdict.is_refusal:
        return Finding("Version", "warning" if ignored else "problem", verdict.explanation)
    return Finding("Version", "warning" if verdict.is_warning else "ok", verdict.explanation)


async def _indices(store: Store, settings: Settings) -> list[Finding]:
    service = settings.service
    for attempt in range(1, service.preflight_max_attempts + 1):
        try:
            created = await store.ensure_indices()
        except Forbidden as problem:
            return [Finding("Protocol indices", "problem", str(problem))]
        except StoreError as problem:
            log.warning("preflight.indices", attempt=attempt, of=service.preflight_max_attempts, why=str(problem))
            if attempt == service.preflight_max_attempts:
                return [Finding("Protocol indices", "problem", f"{problem} Tried {attempt} times.")]
            await trio.sleep(service.preflight_idle)
        else:
            return [Finding("Protocol indices", "ok", f"created {', '.join(created)}" if created else "there")]
    raise AssertionError("at least one attempt")


async def _licence(store: Store) -> Finding:
    licence = await store.rights.licence()
    if licence is None:
        return Finding("Licence", "ok", "there is none to ask for")
    if licence.allows(ACCESS_CONTROL_LICENCE):
        return Finding("Licence", "ok", licence.kind)
    state = licence.kind if licence.is_active else f"{licence.kind}, and it has expired"
    return Finding(
        "Licence", "ok", f"{state}. Content is synced; access-control syncs need {ACCESS_CONTROL_LICENCE} or better."
    )


async def _privileges(store: Store) -> Finding:
    index = {f"{CONNECTORS_INDEX}*": INDEX_PRIVILEGES, f"{JOBS_INDEX}*": INDEX_PRIVILEGES}
    try:
        lacking = await store.rights.privileges(cluster=CLUSTER_PRIVILEGES, index=index)
    except StoreError as problem:
        return Finding("Privileges", "warning", f"they cannot be asked for: {problem}")
    if lacking is None:
        return Finding("Privileges", "ok", "the server has no users, so everybody may do everything")
    if lacking.suffices:
        return Finding("Privileges", "ok", str(lacking))
    grants = ", ".join(f'"{name}"' for name in CLUSTER_PRIVILEGES)
    names = ", ".join(f'"{name}"' for name in index)
    held = ", ".join(f'"{name}"' for name in INDEX_PRIVILEGES)
    return Finding(
        "Privileges",
        "problem",
        f"{lacking}. Grant them to the role of this user or API key: "
        f'PUT _security/role/callboard {{"cluster": [{grants}], "indices": [{{"names": [{names}], '
        f'"privileges": [{held}], "allow_restricted_indices": true}}]}}, and `read`, `write`, `create_index` and '
        "`manage` on the connectors' own indices.",
    )


async def _extraction(service: ExtractionServiceSettings) -> list[Finding]:
    if service.host is None:
        return []
    import httpx

    url = f"{service.host.rstrip('/')}/ping/"
    try:
        async with httpx.AsyncClient(timeout=EXTRACTION_ANSWER_S) as client:
            answer = await client.get(url)
    except (httpx.HTTPError, httpx.InvalidURL) as problem:
        why = f"{type(problem).__name__}: {problem}".rstrip(": ")
        return [
            Finding(
                "Extraction service",
                "warning",
                f"{url} does not answer ({why}). Files get no text until it does. Start it, or remove `extraction_service.host`.",
            )
        ]
    if answer.status_code != 200:
        return [
            Finding("Extraction service", "warning", f"{url} answers {answer.status_code}, not 200. Look at its log.")
        ]
    return [Finding("Extraction service", "ok", f"{service.host} answers")]

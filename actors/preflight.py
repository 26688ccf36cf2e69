"""Before a service begins: is everything there that it needs? Every finding says what was looked at and what to do."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Literal

import attrs
import structlog
import trio

from ..protocol.indices import CONNECTORS_ALIAS, CONNECTORS_INDEX, JOBS_ALIAS, JOBS_INDEX, acl_index
from ..protocol.store import Forbidden, NotFound, Store, StoreError, open_store
from ..protocol.versions import PROTOCOL_VERSION, InvalidVersion, compare
from ..protocol.wire import InvalidDocument
from .configuration import ExtractionServiceSettings, Settings
from .configured import content_target
from .schedule_plan import ACCESS_CONTROL_LICENCE

log = structlog.get_logger(__name__)

EXTRACTION_ANSWER_S = 5.0
CLUSTER_PRIVILEGES = ("monitor", "manage_connector")
ALIAS_PRIVILEGES = ("read", "write")
INDEX_PRIVILEGES = ("read", "write", "create_index")
CONTENT_PRIVILEGES = ("read", "write", "create_index", "manage")
OWN_INDICES = ".callboard-*"
"""Checkpoints, fingerprints of documents, dead letters, the journal."""
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
    findings = await examine(store, settings, ignore_version=ignore_version)
    for finding in findings:
        if finding.verdict != "ok":
            log.warning("preflight", subject=finding.subject, text=finding.text)
    if any(finding.verdict == "problem" for finding in findings):
        raise PreflightFailed(findings)
    return findings


async def examine(
    store: Store,
    settings: Settings,
    *,
    ignore_version: bool = False,
    is_service: bool = True,
    changes_nothing: bool = False,
) -> tuple[Finding, ...]:
    """Look at everything and return what was found, problems included.

    With `changes_nothing` no index is created, no problem hides the next one, and the keys and indices of the single connectors are
    looked at as well. Without `is_service` the settings are not those of a service. Raises `StoreError`.
    """
    findings = [*(_configuration(settings) if is_service else ()), *fips(settings.service.fips_mode)]
    findings.append(_version(store, ignore_version))
    if changes_nothing:
        findings += await _indices_there(store)
    elif any(finding.verdict == "problem" for finding in findings):
        # Nothing is created at a server that is not ours.
        return tuple(findings)
    else:
        findings += await _indices(store, settings)
    findings.append(await _licence(store))
    findings.append(await _privileges(store))
    if changes_nothing and is_service:
        findings += await _connectors(store, settings)
    findings += await _extraction(settings.extraction_service)
    return tuple(findings)


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


async def _indices_there(store: Store) -> list[Finding]:
    try:
        missing = [name for name in (CONNECTORS_INDEX, JOBS_INDEX) if not await store.client.indices.exists(index=name)]
    except Forbidden as problem:
        # What would have to be granted is said by the look at the privileges, which comes later.
        return [Finding("Protocol indices", "problem", str(problem))]
    if missing:
        text = f"not there yet: {', '.join(missing)}; a service or a sync makes them"
        return [Finding("Protocol indices", "warning", text)]
    return [Finding("Protocol indices", "ok", "there")]


async def _connectors(store: Store, settings: Settings) -> list[Finding]:
    """The connectors that are named: whether each exists, and whether its documents may be written."""
    found: list[Finding] = []
    for named in settings.connectors:
        subject = f"Connector {named.connector_id}"
        try:
            connector = await store.connectors.get(named.connector_id)
        except NotFound:
            found.append(
                Finding(subject, "warning", "there is no such connector. Create it, or remove it from `connectors`.")
            )
            continue
        except (InvalidDocument, StoreError) as problem:
            found.append(Finding(subject, "warning", str(problem)))
            continue
        if not connector.index_name:
            found.append(Finding(subject, "warning", "it has no index. Attach one, or its jobs cannot run."))
            continue
        found.append(await _content(store, subject, connector.index_name, named.api_key))
    return found


async def _content(store: Store, subject: str, index: str, api_key: str | None) -> Finding:
    target = content_target(store.target, api_key)
    wanted = dict.fromkeys((index, acl_index(index)), CONTENT_PRIVILEGES)
    try:
        if target is None:
            lacking = await store.rights.privileges(index=wanted)
        else:
            async with open_store(target, wait_s=None) as own:
                lacking = await own.rights.privileges(index=wanted)
    except StoreError as problem:
        whose = "its own API key" if target is not None else "the service's credentials"
        return Finding(subject, "problem" if target is not None else "warning", f"with {whose}: {problem}")
    if lacking is None or lacking.suffices:
        return Finding(subject, "ok", f"its index {index} may be written")
    names = ", ".join(f'"{name}"' for name in lacking.missing_index)
    held = ", ".join(f'"{name}"' for name in CONTENT_PRIVILEGES)
    whose = "its API key" if target is not None else "the service's user or API key"
    return Finding(
        subject,
        "problem",
        f'{lacking}. Grant it to {whose}: {{"indices": [{{"names": [{names}], "privileges": [{held}]}}]}}',
    )


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
    # Requests name the aliases, and a right to what is behind an alias is none to the alias.
    index = {
        **dict.fromkeys((CONNECTORS_ALIAS, JOBS_ALIAS), ALIAS_PRIVILEGES),
        **dict.fromkeys((f"{CONNECTORS_INDEX}*", f"{JOBS_INDEX}*", OWN_INDICES), INDEX_PRIVILEGES),
    }
    try:
        lacking = await store.rights.privileges(cluster=CLUSTER_PRIVILEGES, index=index)
    except StoreError as problem:
        return Finding("Privileges", "warning", f"they cannot be asked for: {problem}")
    if lacking is None:
        return Finding("Privileges", "ok", "the server has no users, so everybody may do everything")
    if lacking.suffices:
        return Finding("Privileges", "ok", str(lacking))
    grants = ", ".join(f'"{name}"' for name in CLUSTER_PRIVILEGES)
    names = f'"{CONNECTORS_ALIAS}*", "{OWN_INDICES}"'
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

"""Syncing from inside another program: a source, a place, an index, and a report."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs

from ...protocol import Pipeline, Rule, check_index_name
from ...protocol.filtering import compile_rules
from ...protocol.indices import acl_index
from ...protocol.store import Store, StoreError, Target, open_store
from ...sources.errors import SourceError
from ...sources.source import Source
from .error_monitor import TooManyErrors
from .failing import SyncFailed
from .fingerprints import setup_fingerprint
from .plan import Kind, SyncPlan
from .report import ProgressEvent, SyncReport
from .run import SyncRun
from .settings import SyncSettings
from .sink import CannotIndex
from .state import StateNotWritten

FAILURES = (SourceError, StoreError, SyncFailed, CannotIndex, TooManyErrors, StateNotWritten)
"""What ends a sync with an error; anything else is a bug and is raised."""


async def sync(
    source: Source[Any],
    sink: Store | Target | str,
    *,
    index: str,
    kind: Kind = "full",
    settings: SyncSettings | None = None,
    pipeline: Pipeline | None = None,
    rules: Iterable[Rule] = (),
    advanced_rules: Any = None,
    cursor: Any = None,
    extractor: Any = None,
    on_progress: Callable[[ProgressEvent], None] | None = None,
) -> SyncReport:
    """Make an index equal to a source, without connector or job documents; returns how it went.

    `sink` is an open store, a target, or the URL of an Elasticsearch. Without a `pipeline`, files are read here (by `extractor`,
    or Callboard's own) and their text becomes `body`. What goes wrong in the source or in Elasticsearch is told by the report's
    `status` and `error`; a mistake in the program is raised. `on_progress` is called a few times a second and must not block.
    Cancelled: nothing keeps running; what was accepted stays, and the next call goes on by skipping it.
    """
    settings = settings or SyncSettings()
    check_index_name(index)
    plan = SyncPlan(
        index=acl_index(index) if kind == "access_control" else index,
        kind=kind,
        pipeline=pipeline,
        rules=compile_rules(tuple(rules)),
        advanced_rules=advanced_rules,
        cursor=cursor,
        setup=setup_of(source, pipeline=pipeline, rules=tuple(rules), advanced_rules=advanced_rules),
        text_locally=pipeline is None or not pipeline.extract_binary_content,
    )
    async with _opened(sink) as store, source.session():
        run = SyncRun(store, source, plan, settings, extractor=extractor, on_progress=on_progress)
        try:
            await run.run()
        except FAILURES as exc:
            return run.report("error", f"{type(exc).__name__}: {exc}")
        return run.report("completed")


def setup_of(source: Source[Any], *, pipeline: Pipeline | None, rules: Any, advanced_rules: Any) -> bytes:
    """Fingerprint of everything beside the documents that decides what is indexed."""
    config = source.config
    return setup_fingerprint(
        source=type(source).__qualname__,
        config=attrs.asdict(config) if attrs.has(type(config)) else repr(config),
        pipeline=None if pipeline is None else attrs.asdict(pipeline),
        rules=[(rule.policy, rule.field, rule.rule, rule.value, rule.order) for rule in rules],
        advanced_rules=advanced_rules,
    )


@asynccontextmanager
async def _opened(sink: Store | Target | str) -> AsyncIterator[Store]:
    if isinstance(sink, Store):
        yield sink
        return
    async with open_store(Target(sink) if isinstance(sink, str) else sink) as store:
        yield store

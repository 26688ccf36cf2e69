"""What a job of the Connector Protocol asks for: its source, its rules, and the plan that the engine follows. Only reads."""

from __future__ import annotations

from typing import Any

from ..protocol import JobType, Pipeline, SyncJob
from ..protocol.configuration import read_configuration
from ..protocol.filtering import CompiledRules, compile_rules
from ..protocol.indices import DEFAULT_PIPELINE, acl_index
from ..protocol.store import Forbidden, NotFound, NotSupported, Store
from ..sources.source import Source, SourceContext
from .secrets import secrets_of
from .sync.embedding import setup_of
from .sync.plan import SyncPlan
from .sync.state import confirmed_for


class JobFailed(Exception):
    """The job cannot be run as it is; the text is a sentence for people."""


def source_of(job: SyncJob, context: SourceContext) -> Source[Any]:
    """Make the source of a job from the configuration that the job remembers. Raises `InvalidConfiguration`, `SourceError`."""
    from ..sources.registry import source_class

    if job.connector.service_type is None:
        raise JobFailed("The job names no service type.")
    kind: Any = source_class(job.connector.service_type)
    source: Source[Any] = kind(read_configuration(kind.Config, job.connector.configuration), context)
    return source


def rules_of(job: SyncJob, source: Source[Any]) -> CompiledRules:
    """The basic rules that decide about this job's documents. Raises `InvalidRules`."""
    if job.job_type is JobType.ACCESS_CONTROL or not source.features.basic_rules:
        return compile_rules(())
    return compile_rules(job.connector.filtering)


async def plan_of(
    store: Store,
    job: SyncJob,
    source: Source[Any],
    rules: CompiledRules,
    *,
    content_store: Store | None = None,
    goes_on: bool = False,
) -> tuple[SyncPlan, tuple[str, ...]]:
    """Decide what a job is to do, and say what is odd about it. Only reads. Raises `JobFailed` if it cannot be done."""
    snapshot = job.connector
    if not snapshot.index_name:
        raise JobFailed("The job names no index. Attach an index to the connector.")
    is_acl = job.job_type is JobType.ACCESS_CONTROL
    advanced = snapshot.filtering.advanced_snippet.value if snapshot.filtering.has_advanced and not is_acl else None
    if advanced is not None:
        problems = await source.validate_rules(advanced)
        if problems:
            raise JobFailed(f"The advanced rules cannot be used: {'; '.join(one.message for one in problems)}")
    wanted = snapshot.pipeline or Pipeline()
    pipeline, notes = await _existing(content_store or store, wanted)
    extracts = bool(getattr(source.config, "use_text_extraction_service", False))
    plan = SyncPlan(
        index=acl_index(snapshot.index_name) if is_acl else snapshot.index_name,
        kind=job.job_type.value,
        pipeline=pipeline,
        rules=rules,
        advanced_rules=advanced,
        cursor=job.sync_cursor,
        setup=setup_of(source, pipeline=pipeline, rules=snapshot.filtering.rules, advanced_rules=advanced),
        text_locally=extracts or pipeline is None,
        read_content=extracts or wanted.extract_binary_content,
        job_id=job.id,
        goes_on=goes_on,
        connector_id=snapshot.id,
        secrets=secrets_of(snapshot.configuration),
        deletions_confirmed=await confirmed_for(store, snapshot.index_name),
    )
    return plan, notes


async def _existing(store: Store, pipeline: Pipeline) -> tuple[Pipeline | None, tuple[str, ...]]:
    """The pipeline if the server has it. Without the default one, documents are made here as it would make them."""
    try:
        await store.client.ingest.get_pipeline(id=pipeline.name)
    except Forbidden:
        # The key of a connector may often do no more than write its index; then the pipeline is taken at its word.
        return pipeline, ()
    except (NotFound, NotSupported) as exc:
        if pipeline.name == DEFAULT_PIPELINE:
            return None, (f"this server has no pipeline {DEFAULT_PIPELINE!r}, so files were read here",)
        raise JobFailed(
            f"The ingest pipeline {pipeline.name!r} does not exist. Create it, or choose another one for the connector."
        ) from exc
    return pipeline, ()

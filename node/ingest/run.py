"""Running documents through pipelines."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs
import orjson

from ..errors import ApiError, illegal_argument
from ..storage.catalog import Catalog
from ..storage.templates import Blueprint, compose
from .fields import ProcessorFailed
from .processors import Dropped, Processor, Reader, Run, read_processors

PIPELINES_DEEP_MAX = 20


@attrs.frozen
class Pipeline:
    """A pipeline that was read."""

    name: str
    processors: tuple[Processor, ...]
    on_failure: tuple[Processor, ...]


@attrs.frozen
class Ingested:
    """A document after its pipelines, which may have changed where it goes."""

    source: dict[str, Any]
    index: str
    doc_id: str | None


def read_pipeline(name: str, body: Any) -> Pipeline:
    """Read a pipeline. Raises 400 and 501."""
    if not isinstance(body, dict):
        raise ApiError(400, "parse_exception", "a pipeline must be an object")
    unknown = body.keys() - {"description", "processors", "on_failure", "version", "_meta", "deprecated"}
    if unknown:
        raise ApiError(
            400,
            "parse_exception",
            f"pipeline [{name}] doesn't support one or more provided configuration parameters {sorted(unknown)}",
        )
    if "processors" not in body:
        raise ApiError(400, "parse_exception", "[processors] required property is missing", property_name="processors")
    return Pipeline(
        name, read_processors(body["processors"]), read_processors(body.get("on_failure", []), "on_failure")
    )


class Ingest:
    """Pipelines of one catalog, read at most once."""

    def __init__(self, catalog: Catalog, reader: Reader | None, moment: datetime) -> None:
        self._catalog = catalog
        self._reader = reader
        self._moment = moment
        self._read: dict[str, Pipeline] = {}
        self._settings: dict[str, dict[str, Any]] = {}

    def pipelines_for(self, index: str, asked: str | None) -> tuple[str, ...]:
        """Return the pipelines a document goes through: the one asked for or the index's default, then its final one."""
        settings = self._settings.get(index)
        if settings is None:
            settings = self._settings[index] = self._settings_of(index)
        first = asked if asked is not None else settings.get("default_pipeline", "_none")
        return tuple(name for name in (first, settings.get("final_pipeline", "_none")) if name not in ("_none", ""))

    def _settings_of(self, index: str) -> dict[str, Any]:
        known = self._catalog.indices.get(index)
        if known is None:
            behind = self._catalog.indices_of_alias(index)
            writable = [one for one in behind if one.aliases[index].get("is_write_index") is True] or behind
            known = writable[0] if writable else None
        if known is not None:
            return known.settings
        try:
            return compose(index, Blueprint({}, {}, {}), self._catalog.things).settings
        except ApiError:
            # The write itself will say what is wrong with the template.
            return {}

    def _pipeline(self, name: str) -> Pipeline:
        if name not in self._read:
            body = self._catalog.names("pipeline").get(name)
            if body is None:
                raise illegal_argument(f"pipeline with id [{name}] does not exist")
            self._read[name] = read_pipeline(name, body)
        return self._read[name]

    async def run(
        self, names: tuple[str, ...], index: str, doc_id: str | None, source: dict[str, Any]
    ) -> Ingested | None:
        """Return what the pipelines make of a document, None if they drop it. Raises `ApiError` with what failed.

        The source given is not changed. Cancelled: nothing has happened.
        """
        try:
            content = orjson.loads(orjson.dumps(source))
        except orjson.JSONEncodeError as error:
            raise ApiError(400, "document_parsing_exception", f"[1:1] failed to copy the document: {error}") from error
        content["_index"] = index
        if doc_id is not None:
            content["_id"] = doc_id
        metadata = {"_ingest": {"timestamp": self._moment.isoformat().replace("+00:00", "Z")}}
        run = Run(content, metadata, self._reader)
        try:
            for name in names:
                await self._run_pipeline(self._pipeline(name), run, 0)
        except Dropped:
            return None
        except ProcessorFailed as error:
            raise ApiError(400, error.kind, str(error)) from error
        target = content.pop("_index", index)
        new_id = content.pop("_id", None)
        if not isinstance(target, str) or not (new_id is None or isinstance(new_id, str | int)):
            raise ApiError(
                400, "illegal_argument_exception", "a pipeline made [_index] or [_id] something that is no text"
            )
        return Ingested(content, target, None if new_id is None else str(new_id))

    async def simulate(self, pipeline: Pipeline, index: str, doc_id: str, source: dict[str, Any]) -> Ingested | None:
        """Run one pipeline that need not be stored."""
        self._read = {**self._read, pipeline.name: pipeline}
        return await self.run((pipeline.name,), index, doc_id, source)

    async def _run_pipeline(self, pipeline: Pipeline, run: Run, depth: int) -> None:
        if depth > PIPELINES_DEEP_MAX:
            raise ProcessorFailed("graph_structure_exception", f"Cycle detected for pipeline: {pipeline.name}")
        try:
            for processor in pipeline.processors:
                await self._run_processor(processor, run, pipeline.name, depth)
        except ProcessorFailed as error:
            if not pipeline.on_failure:
                raise
            run.metadata["_ingest"].setdefault("on_failure_message", str(error))
            run.metadata["_ingest"]["on_failure_pipeline"] = pipeline.name
            for processor in pipeline.on_failure:
                await self._run_processor(processor, run, pipeline.name, depth)

    async def _run_processor(self, processor: Processor, run: Run, pipeline: str, depth: int) -> None:
        if processor.condition is not None and not processor.condition(run.document):
            return
        try:
            if processor.attachment is not None:
                await processor.attachment.run(run)
            elif processor.pipeline is not None:
                await self._run_named(processor.pipeline, run, depth)
            elif processor.work is not None:
                processor.work(run)
        except ProcessorFailed as error:
            if processor.ignore_failure:
                return
            if not processor.on_failure:
                run.metadata["_ingest"].update(
                    on_failure_message=str(error),
                    on_failure_processor_type=processor.kind,
                    on_failure_processor_tag=processor.tag,
                )
                raise
            before = dict(run.metadata["_ingest"])
            run.metadata["_ingest"].update(
                on_failure_message=str(error),
                on_failure_processor_type=processor.kind,
                on_failure_processor_tag=processor.tag,
                on_failure_pipeline=pipeline,
            )
            for step in processor.on_failure:
                await self._run_processor(step, run, pipeline, depth)
            run.metadata["_ingest"] = before

    async def _run_named(self, name: str, run: Run, depth: int) -> None:
        optional = name.endswith("?")
        name = name.removesuffix("?")
        if optional and name not in self._catalog.names("pipeline") and name not in self._read:
            return
        try:
            pipeline = self._pipeline(name)
        except ApiError as error:
            raise ProcessorFailed(
                "illegal_state_exception", f"Pipeline processor configured for non-existent pipeline [{name}]"
            ) from error
        await self._run_pipeline(pipeline, run, depth + 1)

"""Connector documents in Elasticsearch: several programs write them, so every write here is guarded or goes through the API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any
from urllib.parse import quote

import attrs

from ...runtime import new_id, now
from .. import connectors as transitions
from ..documents import Connector, JobType, Rules, SyncJob, Validation, ValidationState, read_connector, write_connector
from ..indices import CONNECTORS_ALIAS
from ..jobs import TransitionRefused
from ..wire import JSON, same, write
from .client import Wire
from .errors import NotFound, NotSupported, Refused
from .guarded import GuardedDocuments

_BY_INDEX_NAME = [{"index_name": {"order": "asc", "unmapped_type": "keyword"}}]


def _path(connector_id: str) -> str:
    return f"/_connector/{quote(connector_id, safe='')}"


class Connectors:
    """`store.connectors`. Raises `StoreError`, `TransitionRefused` where the state does not allow it, `InvalidDocument`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._api = wire.target.use_connectors_api
        self.documents: GuardedDocuments[Connector] = GuardedDocuments(
            wire, CONNECTORS_ALIAS, "Connector", read_connector, write_connector
        )

    async def create(
        self,
        connector_id: str | None = None,
        *,
        index_name: str | None = None,
        name: str = "",
        description: str | None = None,
        service_type: str | None = None,
        language: str | None = None,
        is_native: bool = False,
    ) -> Connector:
        """Make a connector with Elasticsearch's own defaults. Never replaces one: raises `Conflict` if the id is in use.

        Raises `InvalidIndexName`, and `Refused` if another connector has the index.
        """
        connector = transitions.create(
            connector_id if connector_id is not None else new_id(),
            now(),
            index_name=index_name,
            name=name,
            description=description,
            service_type=service_type,
            language=language,
            is_native=is_native,
        )
        if index_name is not None:
            # The API checks this as well, but its own PUT would replace an existing connector; so both modes write here.
            others = self.list(index_names=[index_name])
            async with aclosing(others):
                async for other in others:
                    if other.id != connector.id:
                        raise Refused(
                            f"The index {index_name!r} belongs to connector {other.id!r}. Choose another index.",
                            status=400,
                        )
        return await self.documents.create(connector.id, connector)

    async def get(self, connector_id: str, *, include_deleted: bool = False) -> Connector:
        """Read one connector as it is now. Raises `NotFound`, also for a deleted one unless asked otherwise."""
        connector, _ = await self.documents.read(connector_id)
        if connector.deleted and not include_deleted:
            raise self.documents.absent(connector_id)
        return connector

    def list(
        self,
        *,
        ids: Collection[str] | None = None,
        index_names: Collection[str] | None = None,
        service_types: Collection[str] | None = None,
        include_deleted: bool = False,
    ) -> AsyncGenerator[Connector]:
        """Yield the connectors that match all given filters, by index name, however many there are."""
        filters: list[dict[str, Any]] = []
        if ids is not None:
            filters.append({"ids": {"values": sorted(ids)}})
        if index_names is not None:
            filters.append({"terms": {"index_name": sorted(index_names)}})
        if service_types is not None:
            filters.append({"terms": {"service_type": sorted(service_types)}})
        return self._matching(filters, include_deleted)

    def own(self, ids: Collection[str], service_types: Collection[str] = ()) -> AsyncGenerator[Connector]:
        """Yield what a service works on: these ids, and every self-managed connector of these service types."""
        either: list[dict[str, Any]] = [{"ids": {"values": sorted(ids)}}]
        if service_types:
            of_type = [{"terms": {"service_type": sorted(service_types)}}, {"term": {"is_native": False}}]
            either.append({"bool": {"filter": of_type}})
        return self._matching([{"bool": {"should": either, "minimum_should_match": 1}}], include_deleted=False)

    async def update(
        self, connector_id: str, decide: Callable[[Connector], Connector], *, refresh: bool = True
    ) -> Connector:
        """Replace a connector by what the pure function `decide` makes of it, under its sequence number.

        `decide` may be called again after a conflict; what it raises is passed on. Raises `NotFound` for a deleted one too.
        """

        def decide_alive(connector: Connector) -> Connector:
            if connector.deleted:
                raise self.documents.absent(connector_id)
            return decide(connector)

        return await self.documents.update(connector_id, decide_alive, refresh=refresh)

    async def check_in(self, connector_id: str) -> None:
        """Write the heartbeat: `last_seen` becomes now."""
        if self._api:
            try:
                await self._wire.call("PUT", f"{_path(connector_id)}/_check_in")
            except NotSupported:
                self._api = False
            else:
                return
        await self.documents.update(
            connector_id, lambda connector: transitions.check_in(connector, now()), refresh=False
        )

    async def schedule_fired(self, connector_id: str, job_type: JobType, fire_time: datetime) -> Connector:
        """Take a fire time for this service. Of several services one gets it, the others get `TransitionRefused`."""
        return await self.update(
            connector_id, lambda connector: transitions.schedule_fired(connector, job_type, fire_time)
        )

    async def sync_starts(self, connector_id: str, job_type: JobType) -> Connector:
        """Note that a job begins. Refused while one of the same kind runs."""
        return await self.update(connector_id, lambda connector: transitions.sync_starts(connector, job_type))

    async def sync_ends(self, connector_id: str, job: SyncJob | None, sync_cursor: JSON = None) -> Connector:
        """Note how a job ended; None stands for one whose document has vanished."""
        return await self.documents.update(
            connector_id, lambda connector: transitions.sync_ends(connector, job, now(), sync_cursor)
        )

    async def connected(self, connector_id: str) -> Connector:
        """Say that the configuration is valid and the source answers."""
        return await self.update(connector_id, transitions.connected)

    async def failed(self, connector_id: str, error: str) -> Connector:
        """Say that the configuration is not valid, or that the source does not answer."""
        return await self.update(connector_id, lambda connector: transitions.failed(connector, error))

    async def draft_validated(self, connector_id: str, draft: Rules, validation: Validation) -> Connector:
        """Write the verdict on a draft of sync rules; a valid draft becomes the active rules.

        Refused if the draft was edited since it was read as `draft`: the verdict is on other rules then.
        """

        # One guarded write instead of the API's two calls, between which somebody could edit the draft.
        def decide(connector: Connector) -> Connector:
            if not same(write(connector.rules.draft), write(draft)):
                raise TransitionRefused(f"The draft rules of connector {connector_id} were edited meanwhile.")
            judged = attrs.evolve(connector.rules.draft, validation=validation)
            rules = attrs.evolve(connector.rules, draft=judged)
            if validation.state is ValidationState.VALID:
                rules = attrs.evolve(rules, active=judged)
            return connector.with_rules(rules)

        return await self.update(connector_id, decide)

    async def delete(self, connector_id: str, *, hard: bool = False) -> None:
        """Mark a connector as deleted, or with `hard` remove its document. Raises `NotFound`."""
        if hard:
            await self.documents.delete(connector_id)
        else:
            await self.update(connector_id, lambda connector: attrs.evolve(connector, deleted=True))

    async def exists(self, connector_id: str) -> bool:
        """Tell whether there is such a connector, deleted or not."""
        try:
            await self.get(connector_id, include_deleted=True)
        except NotFound:
            return False
        return True

    def _matching(self, filters: Sequence[dict[str, Any]], include_deleted: bool) -> AsyncGenerator[Connector]:
        query: dict[str, Any] = {"filter": filters}
        if not include_deleted:
            query["must_not"] = [{"term": {"deleted": True}}]
        return self.documents.list({"bool": query}, _BY_INDEX_NAME)

"""The connector of a one-shot sync: found by its index, made if there is none, with the settings that were typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from .failures import CommandFailed
from .settings import check_fields, values_of, with_values

if TYPE_CHECKING:
    from ..protocol.documents import Connector
    from ..protocol.store import Store


async def connector_for(
    store: Store, service_type: str, index_name: str, values: Mapping[str, str], name: str
) -> Connector:
    """Find or make the connector that fills this index from this kind of source, and give it these settings.

    Settings that are not named keep what the connector has. Raises `CommandFailed` if the index belongs to another kind of source,
    and `InvalidConfiguration` if the settings together cannot be used; nothing is written then. Cancelled while a new
    connector is written: it may exist without settings, and is found and finished by the next call.
    """
    found = await _owner(store, service_type, index_name)
    if found is not None:
        configuration = entered(service_type, found.configuration, values)
        if values_of(configuration) == values_of(found.configuration):
            return found
        return await _configure(store, found, configuration)
    configuration = entered(service_type, {}, values)
    made = await store.connectors.create(index_name=index_name, name=name, service_type=service_type)
    return await _configure(store, made, configuration)


async def connector_as_if(store: Store, service_type: str, index_name: str, values: Mapping[str, str]) -> Connector:
    """The connector that `connector_for` would give, without writing anything. Raises what that does."""
    from ..protocol import connectors as transitions
    from ..protocol.documents import Pipeline
    from ..protocol.store import NotFound
    from ..runtime import now

    try:
        found = await _owner(store, service_type, index_name)
    except NotFound:
        found = None
    present = found or transitions.create("rehearsal", now(), index_name=index_name, service_type=service_type)
    configuration = entered(service_type, present.configuration, values)
    return attrs.evolve(present, configuration=configuration, pipeline=present.pipeline or Pipeline())


async def _owner(store: Store, service_type: str, index_name: str) -> Connector | None:
    """The connector that fills this index, if there is one. Raises `CommandFailed` if its source is of another kind."""
    async for found in store.connectors.list(index_names=[index_name]):
        if found.service_type != service_type:
            raise CommandFailed(
                f"The index {index_name!r} belongs to connector {found.id}, whose source is {found.service_type!r}.",
                hint="Choose another index.",
            )
        return found
    return None


def entered(service_type: str, stored: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """A stored configuration brought up to date, with these values in it. Raises `InvalidConfiguration`."""
    from ..protocol.configuration import read_configuration, upkeep
    from .catalogue import source_type

    config_class = source_type(service_type).Config
    present = upkeep(stored, config_class).configuration
    check_fields(service_type, present, values)
    configuration = with_values(present, values)
    read_configuration(config_class, configuration)
    return configuration


async def _configure(store: Store, connector: Connector, configuration: dict[str, Any]) -> Connector:
    from ..protocol import connectors as transitions
    from ..protocol.documents import Pipeline

    def decide(present: Connector) -> Connector:
        configured = transitions.configured(present, configuration)
        return attrs.evolve(configured, pipeline=present.pipeline or Pipeline())

    return await store.connectors.update(connector.id, decide)

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
    async for found in store.connectors.list(index_names=[index_name]):
        if found.service_type != service_type:
            raise CommandFailed(
                f"The index {index_name!r} belongs to connector {found.id}, whose source is {found.service_type!r}.",
                hint="Choose another index.",
            )
        configuration = entered(service_type, found.configuration, values)
        if values_of(configuration) == values_of(found.configuration):
            return found
        return await _configure(store, found, configuration)
    configuration = entered(service_type, {}, values)
    made = await store.connectors.create(index_name=index_name, name=name, service_type=service_type)
    return await _configure(store, made, configuration)


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

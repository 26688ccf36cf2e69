"""`callboard connector create`: everything a new connector needs, or nothing at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from .catalogue import known_service_type, source_type
from .exits import Exit
from .failures import CommandFailed, one_line
from .options import Command, again, destination_options, format_option
from .prompting import ask, can_ask, confirm
from .settings import check_fields, parse_assignments, values_of, with_values
from .terminal import note, print_json, print_properties

if TYPE_CHECKING:
    from ..protocol.documents import Connector
    from ..protocol.store import Store
    from .destination import Destination


@attrs.frozen
class Plan:
    """What to create, decided before anything is written."""

    service_type: str
    index_name: str
    name: str
    language: str | None
    is_native: bool
    from_index: bool
    configuration: dict[str, Any] = attrs.field(repr=False)
    make_api_key: bool


@attrs.frozen
class Created:
    """What was made."""

    connector: Connector
    api_key: str | None = attrs.field(repr=False)
    """Shown once; the server does not tell it again."""
    remarks: tuple[str, ...]


@click.command(cls=Command)
@click.option("--index-name", metavar="INDEX", help="The index to fill; asked for if left out.")
@click.option("--service-type", metavar="TYPE", help="The kind of source; `callboard source list` shows them.")
@click.option(
    "--index-language", metavar="CODE", default="", help="Language of the texts, such as en; empty is universal."
)
@click.option("--name", help="What people call the connector; asked for if left out.")
@click.option("--native", is_flag=True, help="Elastic-managed; the index name must then start with content-.")
@click.option(
    "--from-index",
    is_flag=True,
    help="Use an existing index. The first sync deletes what is in it and not in the source.",
)
@click.option(
    "--from-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Read the settings from a JSON file: field to value.",
)
@click.option("--set", "assignments", metavar="FIELD=VALUE", multiple=True, help="A setting of the source; repeatable.")
@click.option("--update-config", is_flag=True, help="Add the connector to the service's configuration file.")
@click.option(
    "--connector-service-config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default=Path("config.yml"),
    show_default=True,
    help="The file that --update-config changes; comments in it are kept.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask before using an existing index.")
@destination_options
@format_option("text", "json", default="text")
def create(
    index_name: str | None,
    service_type: str | None,
    index_language: str,
    name: str | None,
    native: bool,
    from_index: bool,
    from_file: Path | None,
    assignments: tuple[str, ...],
    update_config: bool,
    connector_service_config: Path,
    yes: bool,
    format_: str,
    **where: Any,
) -> None:
    """Create a connector, and the index it fills.

    What is not given is asked for, if somebody is there to answer: each setting of the source as soon as it applies, secret ones
    hidden. The settings are checked before anything is made.
    """
    from ..protocol.indices import check_index_name
    from .destination import Destination
    from .running import run_async
    from .service_file import add_connector, check_service_file

    chosen = _service_type(service_type)

    def usable(name: str) -> str:
        return check_index_name(name, is_native=native)

    index = usable(index_name or ask("Index name", option="--index-name", check=usable))
    title = name or ask("Name", default=index, option="--name")
    if from_index and not confirm(
        f"The first sync deletes every document of {index!r} that is not in the source. Go on?", yes=yes
    ):
        raise CommandFailed("Nothing was created.", code=Exit.FAILED)
    if update_config:
        check_service_file(connector_service_config)
    destination = Destination.chosen(**where)
    plan = Plan(
        service_type=chosen,
        index_name=index,
        name=title,
        language=index_language or None,
        is_native=native,
        from_index=from_index,
        configuration=_configuration(chosen, from_file, parse_assignments(assignments)),
        make_api_key=destination.api_key is None,
    )
    created = run_async(_create, destination, plan)
    remarks = list(created.remarks)
    if update_config and not native:
        try:
            add_connector(connector_service_config, created.connector.id, chosen, created.api_key)
        except BaseException:
            # The connector is there, and its key is told only this once.
            _print_created(created, format_, remarks)
            raise
        remarks.append(f"Added to {connector_service_config}.")
    _print_created(created, format_, remarks)


def _service_type(given: str | None) -> str:
    if given is None:
        from ..sources.registry import service_types

        known = ", ".join(info.service_type for info in service_types())
        if can_ask():
            click.echo(f"Sources: {known}", err=True)
        given = ask("Service type", option="--service-type", check=known_service_type)
    return known_service_type(given)


def _configuration(service_type: str, from_file: Path | None, values: dict[str, str]) -> dict[str, Any]:
    """The settings: from a file, from options, from answers. Raises `InvalidConfiguration` that lists all problems."""
    from ..protocol.configuration import read_configuration, schema_of
    from .questions import ask_settings

    config_class = source_type(service_type).Config
    schema = schema_of(config_class)
    given: dict[str, Any] = _read_settings_file(from_file) if from_file else {}
    given |= values
    check_fields(service_type, schema, given)
    entered = with_values(schema, given)
    if from_file is None and can_ask():
        entered = ask_settings(entered, answered=set(given), config_class=config_class)
    read_configuration(config_class, entered)
    return entered


def _read_settings_file(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CommandFailed(f"There is no file {str(path)!r}.", code=Exit.NOT_FOUND) from None
    except OSError as error:
        raise CommandFailed(f"{str(path)!r} cannot be read: {error.strerror}.", code=Exit.LOCAL) from None
    except ValueError as error:
        where = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise CommandFailed(f"{str(path)!r} is not JSON{where}.", code=Exit.USAGE) from None
    if not isinstance(document, dict):
        raise CommandFailed(f"{str(path)!r} must hold one object: field to value.", code=Exit.USAGE)
    # Both a plain map and a whole configuration copied out of a connector document are understood.
    return values_of(document)


async def _create(destination: Destination, plan: Plan) -> Created:
    import trio

    from .destination import open_destination

    async with open_destination(destination) as store:
        await store.ensure_indices()
        await _check_index(store, plan)
        made_index = False
        key_id: str | None = None
        try:
            made_index = not plan.from_index and await store.content.ensure_index(plan.index_name)
            remarks: list[str] = []
            key = await _make_api_key(store, plan.index_name, remarks) if plan.make_api_key else None
            if not plan.make_api_key:
                remarks.append("No API key was made, because you work with one; the service can use its own.")
            key_id = key["id"] if key else None
            secret_id = await _store_secret(store, key["encoded"], remarks) if key and plan.is_native else None
            connector = await _write_connector(store, plan, key_id, secret_id)
        except BaseException:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await _undo(store, plan.index_name if made_index else None, key_id)
            raise
    return Created(connector, key["encoded"] if key else None, tuple(remarks))


async def _check_index(store: Store, plan: Plan) -> None:
    from .index import index_exists

    async for other in store.connectors.list(index_names=[plan.index_name]):
        raise CommandFailed(
            f"The index {plan.index_name!r} belongs to the connector {other.id} already.",
            hint=f"Choose another index, or change that connector: {again(f'connector edit {other.id}')}",
        )
    exists = await index_exists(store, plan.index_name)
    if exists and not plan.from_index:
        raise CommandFailed(
            f"The index {plan.index_name!r} exists already.", hint="To use it and what is in it, say --from-index."
        )
    if plan.from_index and not exists:
        raise CommandFailed(
            f"There is no index {plan.index_name!r}.", hint="Leave out --from-index to make it.", code=Exit.NOT_FOUND
        )


async def _make_api_key(store: Store, index_name: str, remarks: list[str]) -> dict[str, Any] | None:
    """Make a key that may do what a service needs for this connector; without the right to, go on and say so."""
    from ..protocol.indices import CONNECTORS_ALIAS, acl_index
    from ..protocol.store import StoreError

    # The alias, since requests name it: a right to what is behind an alias is none to the alias. It covers the jobs, too.
    indices = [index_name, acl_index(index_name), f"{CONNECTORS_ALIAS}*"]
    role = {
        "cluster": ["monitor", "manage_connector"],
        "index": [{"names": indices, "privileges": ["all"], "allow_restricted_indices": False}],
    }
    try:
        made = await store.client.security.create_api_key(
            name=f"{index_name}-connector",
            role_descriptors={f"{index_name}-connector-role": role},
            metadata={"created_by": "Callboard CLI"},
        )
    except StoreError as error:
        remarks.append(f"No API key was made: {one_line(str(error))}")
        return None
    key: dict[str, Any] = made.body
    return key


async def _store_secret(store: Store, encoded: str, remarks: list[str]) -> str | None:
    from ..protocol.store import StoreError

    try:
        answer = await store.client.perform_request(
            "POST",
            "/_connector/_secret",
            headers={"accept": "application/json", "content-type": "application/json"},
            body={"value": encoded},
        )
    except StoreError as error:
        remarks.append(f"The API key could not be kept as a secret: {one_line(str(error))}")
        return None
    secret_id: str = answer.body["id"]
    return secret_id


async def _write_connector(store: Store, plan: Plan, key_id: str | None, secret_id: str | None) -> Connector:
    from ..protocol import connectors as transitions
    from ..protocol.documents import Pipeline

    made = await store.connectors.create(
        index_name=plan.index_name,
        name=plan.name,
        service_type=plan.service_type,
        language=plan.language,
        is_native=plan.is_native,
    )

    def decide(connector: Connector) -> Connector:
        configured = transitions.configured(connector, plan.configuration)
        return attrs.evolve(
            configured, api_key_id=key_id, api_key_secret_id=secret_id, pipeline=connector.pipeline or Pipeline()
        )

    try:
        return await store.connectors.update(made.id, decide)
    except BaseException:
        import trio

        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await store.connectors.delete(made.id, hard=True)
        raise


async def _undo(store: Store, made_index: str | None, key_id: str | None) -> None:
    """Take back what was made before something failed; what cannot be taken back is said."""
    from ..protocol.store import StoreError

    try:
        if made_index is not None:
            await store.content.delete_index(made_index)
        if key_id is not None:
            await store.client.security.invalidate_api_key(ids=[key_id])
    except StoreError as error:
        note(f"Could not take back everything: {one_line(str(error))}")


def _print_created(created: Created, format_: str, remarks: list[str]) -> None:
    connector = created.connector
    if format_ == "json":
        print_json(
            {
                "id": connector.id,
                "name": connector.name,
                "service_type": connector.service_type,
                "index_name": connector.index_name,
                "api_key": created.api_key,
                "remarks": remarks,
            }
        )
        return
    print_properties(
        [
            ("Connector", connector.id),
            ("Name", connector.name),
            ("Service type", connector.service_type),
            ("Index", connector.index_name),
            *([("API key", f"{created.api_key}  (shown only now)")] if created.api_key else []),
        ]
    )
    for remark in remarks:
        note(remark)
    note(f"\nNext: {again(f'job start -i {connector.id} -t full')}")

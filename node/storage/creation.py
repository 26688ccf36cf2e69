"""Making indices, and finding the one that a write means."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ...protocol.indices import CONNECTORS_ALIAS, CONNECTORS_INDEX, JOBS_ALIAS, JOBS_INDEX
from ...runtime import new_id
from ..errors import ApiError, illegal_argument, index_not_found
from ..mapping.dates import to_ms
from ..mapping.mapping import TOTAL_FIELDS_MAX, Mapping
from ..query.parse import parse_query
from .catalog import Index, Transaction
from .names import check_index_name, matches
from .settings import write_block
from .templates import Blueprint, compose

# Aliases of the connector indices, which a write may name before the index exists; Elasticsearch keeps them as system indices.
SYSTEM_ALIASES = {CONNECTORS_ALIAS: CONNECTORS_INDEX, JOBS_ALIAS: JOBS_INDEX}


def create_index(transaction: Transaction, name: str, asked: Blueprint, now: datetime) -> Index:
    """Make an index. Raises 400 for an illegal name, or one in use."""
    check_index_name(name)
    known = transaction.indices.get(name)
    if known is not None:
        raise ApiError(
            400,
            "resource_already_exists_exception",
            f"index [{name}/{known.uuid}] already exists",
            index_uuid=known.uuid,
            index=name,
        )
    if any(name in index.aliases for index in transaction.indices.values()):
        raise ApiError(
            400,
            "invalid_index_name_exception",
            f"Invalid index name [{name}], already exists as alias",
            index_uuid="_na_",
            index=name,
        )
    blueprint = compose(name, asked, transaction.things)
    check_aliases(transaction, blueprint.aliases, name)
    limit = int(blueprint.settings.get("mapping.total_fields.limit", TOTAL_FIELDS_MAX))
    mapping = Mapping.of({}).merged(blueprint.mappings, limit)
    index = Index(
        name=name,
        number=transaction.next_number,
        uuid=new_id()[:22],
        created_ms=to_ms(now),
        settings=blueprint.settings,
        mapping=mapping,
        aliases=blueprint.aliases,
    )
    transaction.add_index(index)
    return transaction.index(name)


def check_aliases(transaction: Transaction, aliases: dict[str, dict[str, Any]], index: str) -> None:
    """Raise 400 for an alias that is an index, or whose filter is no query."""
    for alias, about in aliases.items():
        if alias in transaction.indices or alias == index:
            raise ApiError(
                400,
                "invalid_alias_name_exception",
                f"Invalid alias name [{alias}]: an index or data stream exists with the same name as the alias",
            )
        if about.get("filter"):
            parse_query(about["filter"])


def index_for_write(
    transaction: Transaction, name: str, now: datetime, *, require_alias: bool = False, create: bool = True
) -> Index:
    """Return the index that a write to `name` means, making it if need be. Raises 400, 403, 404 or 429 as Elasticsearch does."""
    index = transaction.indices.get(name)
    if index is not None and require_alias:
        raise _alias_required(name)
    if index is None:
        index = _by_alias(transaction, name)
    if index is None:
        if require_alias:
            raise _alias_required(name)
        if not create:
            raise index_not_found(name)
        name = SYSTEM_ALIASES.get(name, name)
        check_index_name(name)
        _check_auto_create(transaction, name)
        index = create_index(transaction, name, Blueprint({}, {}, {}), now)
    if index.closed:
        raise ApiError(400, "index_closed_exception", "closed", index_uuid=index.uuid, index=index.name)
    blocked = write_block(index.settings, index.name)
    if blocked is not None:
        raise blocked
    return index


def _by_alias(transaction: Transaction, name: str) -> Index | None:
    behind = [index for index in transaction.indices.values() if name in index.aliases]
    if not behind:
        return None
    writable = [index for index in behind if index.aliases[name].get("is_write_index") is True]
    if len(writable) == 1:
        return writable[0]
    if len(behind) == 1 and behind[0].aliases[name].get("is_write_index") is not False:
        return behind[0]
    raise illegal_argument(
        f"no write index is defined for alias [{name}]. The write index may be explicitly disabled using is_write_index=false or the "
        "alias points to multiple indices without one being designated as a write index"
    )


def _alias_required(name: str) -> ApiError:
    error = index_not_found(name)
    error.reason = f"no such index [{name}] and [require_alias] request flag is [true] and [{name}] is not an alias"
    return error


def _check_auto_create(transaction: Transaction, name: str) -> None:
    rule = str(transaction.things["cluster"].get("settings", {}).get("action.auto_create_index", "true")).lower()
    if rule in ("true", ""):
        return
    if rule != "false":
        for part in rule.split(","):
            sign = part[:1] if part[:1] in "+-" else ""
            if matches(part.removeprefix(sign), name):
                if sign == "-":
                    break
                return
    error = index_not_found(name)
    error.reason = f"no such index [{name}] and [action.auto_create_index] forbids to create it"
    raise error

"""Run data sources written for `connectors_sdk` as they are, so that nobody has to rewrite a connector to move here.

Such a source is an asyncio class with its own configuration object, generators of `(document, lazy download)` and its own
libraries. It is named in `config.yml` (`sources: {mine: "package.module:ClassName"}`), runs on an asyncio loop inside Trio,
and needs nothing changed. Going from one world to the other costs tens of microseconds, so documents cross in batches.

Facts: the interface is that of the public `connectors_sdk` base class: class attributes for the features, methods and
generators for everything else, a `DataSourceConfiguration` for its settings.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, ClassVar

import attrs
import trio
import trio_asyncio

from ..protocol.configuration import configuration_of, setting
from .asyncio_loop import asyncio_loop
from .errors import ConfigurationError, SourceError, UnexpectedAnswer
from .source import (
    JSON,
    AdvancedRulesProblem,
    Checkpoint,
    ContentRef,
    Document,
    Failure,
    Features,
    Identity,
    Listing,
    Partition,
    Source,
    SourceContext,
)

BATCH_DOCUMENTS_MAX = 200
BATCH_WAIT_S = 0.2
"""A batch crosses as soon as it is so old, even when the source has given only one document."""
CLOSE_WAIT_S = 5.0
_REQUIRED = ("get_default_configuration", "ping", "get_docs")


def adapt(service_type: str, target: str) -> type[Source[Any]]:
    """Make a source class from `package.module:ClassName`.

    Raises `ConfigurationError` that names the entry: the module cannot be imported, has no such class, or the class lacks what
    every data source has.
    """
    module_name, _, class_name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever foreign code raises on import is this entry's fault
        raise ConfigurationError(
            f"sources.{service_type}: {module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    original = getattr(module, class_name, None)
    if not inspect.isclass(original):
        raise ConfigurationError(f"sources.{service_type}: {module_name} has no class {class_name!r}")
    if issubclass(original, Source):
        return original
    missing = [name for name in _REQUIRED if not callable(getattr(original, name, None))]
    if missing:
        raise ConfigurationError(
            f"sources.{service_type}: {target} has no {', '.join(missing)}, which every data source needs"
        )
    return type(
        f"Adapted{class_name}",
        (AdaptedSource,),
        {
            "__doc__": f"The data source `{target}`.",
            "service_type": service_type,
            "name": str(getattr(original, "name", None) or class_name),
            "Config": _config_class(service_type, original),
            "features": _features(original),
            "original": original,
        },
    )


class AdaptedSource(Source[Any]):
    """A source whose work is done by a class written for `connectors_sdk`. Made by `adapt`."""

    original: ClassVar[type[Any]]

    def __init__(self, config: Any, context: SourceContext | None = None) -> None:
        super().__init__(config, context)
        configuration = _sdk_configuration_class(self.original)(configuration_of(config))
        self._inner: Any = _translated(self.original, configuration)
        self._call_if_there("set_logger", self.log)
        self._call_if_there("set_framework_config", _FrameworkConfig(self.context.content_size_bytes_max))
        self._tune_downloads()

    def _call_if_there(self, name: str, *arguments: Any) -> None:
        method = getattr(self._inner, name, None)
        if method is not None:
            _translated(method, *arguments)

    def _tune_downloads(self) -> None:
        options = {"concurrent_downloads": self.content_concurrency}
        self._call_if_there("tweak_bulk_options", options)
        wanted = options.get("concurrent_downloads")
        if isinstance(wanted, int) and wanted > 0:
            self.content_concurrency = wanted  # type: ignore[misc]  # one instance's own number

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        async with asyncio_loop():
            try:
                yield
            finally:
                close = getattr(self._inner, "close", None)
                if close is not None:
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_WAIT_S):
                        await _asyncio(close)

    async def ping(self) -> None:
        await _asyncio(self._inner.ping)

    async def validate(self) -> None:
        self._call_if_there("validate_config_fields")
        validate = getattr(self._inner, "validate_config", None)
        if validate is not None:
            await _asyncio(validate)

    async def changed(self) -> bool:
        changed = getattr(self._inner, "changed", None)
        return True if changed is None else bool(await _asyncio(changed))

    async def validate_rules(self, rules: JSON) -> Sequence[AdvancedRulesProblem]:
        given: Any = getattr(self._inner, "advanced_rules_validators", list)()
        problems: list[AdvancedRulesProblem] = []
        for validator in given if isinstance(given, list | tuple) else [given]:
            result = await _asyncio(validator.validate, rules)
            for one in result if isinstance(result, list | tuple) else [result]:
                if not one.is_valid:
                    rule_id = str(getattr(one, "rule_id", "advanced_snippet"))
                    problems.append(AdvancedRulesProblem(str(one.validation_message), (rule_id,)))
        return problems

    async def partitions(self, rules: JSON = None) -> AsyncGenerator[Partition, None]:
        yield Partition(key="all", data={"rules": rules} if rules else {})

    async def documents(self, partition: Partition, checkpoint: JSON = None) -> Listing:
        filtering = _Filtering(partition.data.get("rules"))
        async with aclosing(_batches(self._inner.get_docs(filtering=filtering))) as batches:
            async for batch in batches:
                yield [_document(*_pair(item)) for item in batch]

    async def changes(self, cursor: JSON, rules: JSON = None) -> Listing:
        generator = self._inner.get_docs_incrementally(sync_cursor=cursor, filtering=_Filtering(rules))
        async with aclosing(_batches(generator)) as batches:
            async for batch in batches:
                yield [_document(item[0], item[1], item[2]) for item in batch]
        yield Checkpoint(_translated(self._inner.sync_cursor))

    def sync_cursor(self) -> JSON:
        return _translated(self._inner.sync_cursor) if hasattr(self._inner, "sync_cursor") else None

    async def identities(self) -> AsyncGenerator[Identity | Failure | Sequence[Identity | Failure], None]:
        async with aclosing(_batches(self._inner.get_access_control())) as batches:
            async for batch in batches:
                yield [_identity(item) for item in batch]

    async def fetch_fields(self, content: ContentRef) -> dict[str, JSON]:
        lazy: Callable[..., Awaitable[Any]] = content.data["lazy"]
        got = await _asyncio(_keywords(lazy, doit=True, timestamp=content.version))
        return {name: value for name, value in (got or {}).items() if name not in ("_id", "_timestamp")}


@attrs.frozen
class _FrameworkConfig:
    max_file_size: int | None


class _Filtering(dict[str, Any]):
    """The filter object that data sources are handed."""

    def __init__(self, advanced: JSON) -> None:
        super().__init__(advanced_snippet={"value": advanced} if advanced else {}, rules=[])
        self.basic_rules: list[Any] = []
        self.advanced_rules = advanced or {}
        self.validation = {"state": "valid", "errors": []}

    def has_advanced_rules(self) -> bool:
        return bool(self.advanced_rules)

    def get_advanced_rules(self) -> JSON:
        return self.advanced_rules

    def has_validation_state(self, state: object) -> bool:
        return str(getattr(state, "value", state)).lower() == self.validation["state"]

    def transform_filtering(self) -> dict[str, Any]:
        return dict(self)


def _features(original: type[Any]) -> Features:
    own_changes = "get_docs_incrementally" in {
        name for base in original.__mro__ if not _is_sdk(base) for name in vars(base)
    }
    incremental = bool(getattr(original, "incremental_sync_enabled", False))
    return Features(
        basic_rules=bool(getattr(original, "basic_rules_enabled", True)),
        advanced_rules=bool(getattr(original, "advanced_rules_enabled", False)),
        incremental="none" if not incremental else ("delta" if own_changes else "skip_unchanged"),
        document_level_security=bool(getattr(original, "dls_enabled", False)),
    )


_TYPES: Mapping[str, Any] = {"str": str, "int": int | None, "bool": bool, "list": list[str]}


def _config_class(service_type: str, original: type[Any]) -> type[Any]:
    """Build the typed configuration class from the field objects that the data source declares."""
    declared: Mapping[str, Any] = _translated(original.get_default_configuration)
    fields: dict[str, Any] = {}
    annotations: dict[str, Any] = {}
    for name, entry in declared.items():
        if not name.isidentifier():
            raise ConfigurationError(f"sources.{service_type}: the setting {name!r} is not a name that can be used")
        annotations[name] = _TYPES.get(entry.get("type", "str"), str)
        options = [(str(option["value"]), str(option["label"])) for option in entry.get("options") or ()]
        fields[name] = setting(
            entry.get("label") or name.upper(),
            **_default(entry),
            tooltip=entry.get("tooltip"),
            display=entry.get("display"),
            required=entry.get("required", True),
            sensitive=entry.get("sensitive", False),
            depends_on={one["field"]: one["value"] for one in entry.get("depends_on") or ()},
            options=options,
            order=entry.get("order"),
            ui_restrictions=entry.get("ui_restrictions") or (),
            validations=entry.get("validations") or (),
        )
    namespace = {"__annotations__": annotations, "__module__": __name__, **fields}
    return attrs.frozen(type(f"{original.__name__}Config", (), namespace))


def _default(entry: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if entry.get("value") not in (None, ""):
        given["default"] = entry["value"]
    if entry.get("default_value") is not None:
        given["default_value"] = entry["default_value"]
    return given


def _is_sdk(base: type[Any]) -> bool:
    return base is object or base.__module__.partition(".")[0] in ("connectors_sdk", "typing", "abc")


def _sdk_configuration_class(original: type[Any]) -> Any:
    """Find the configuration class of the very `connectors_sdk` that the data source was written for."""
    for base in original.__mro__:
        if base.__module__.partition(".")[0] == "connectors_sdk":
            found = getattr(importlib.import_module(base.__module__), "DataSourceConfiguration", None)
            if found is not None:
                return found
    try:
        return importlib.import_module("connectors_sdk.source").DataSourceConfiguration
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"{original.__module__}:{original.__name__} needs the package connectors_sdk, which is not installed. "
            "Install it beside the data source."
        ) from error


async def _batches(generator: Any) -> AsyncGenerator[list[Any], None]:
    """Carry the items of an asyncio generator over to Trio, many at a time. Closed early, it closes the generator."""
    pump = _Pump(generator)
    try:
        while True:
            items = await _asyncio(pump.pull)
            if not items:
                return
            yield items
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_WAIT_S):
            await _asyncio(pump.close)


class _Pump:
    """Runs on the asyncio side. The next item may still be on its way when a batch leaves; it is kept for the next one."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator
        self._next: asyncio.Future[Any] | None = None

    async def pull(self) -> list[Any]:
        """Return the next items, at least one; nothing at the end."""
        items: list[Any] = []
        loop = asyncio.get_running_loop()
        deadline = loop.time() + BATCH_WAIT_S
        while len(items) < BATCH_DOCUMENTS_MAX:
            if self._next is None:
                self._next = asyncio.ensure_future(self._generator.__anext__())
            done, _ = await asyncio.wait({self._next}, timeout=max(0.0, deadline - loop.time()) if items else None)
            if not done:
                break
            arrived, self._next = self._next, None
            try:
                items.append(arrived.result())
            except StopAsyncIteration:
                break
            except Exception:
                if not items:
                    raise
                # What came before the error still counts; the next pull meets it first.
                self._next = arrived
                break
        return items

    async def close(self) -> None:
        """Stop waiting for the next item and let the generator clean up."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait({self._next})
            if not self._next.cancelled():
                self._next.exception()
        await self._generator.aclose()


def _pair(item: Any) -> tuple[dict[str, Any], Any]:
    if not isinstance(item, tuple) or len(item) < 2 or not isinstance(item[0], dict):
        raise UnexpectedAnswer(f"The data source yielded {type(item).__name__}, not a pair of document and download")
    return item[0], item[1]


def _document(doc: dict[str, Any], lazy: Any, operation: Any = "index") -> Document | Failure:
    fields = dict(doc)
    document_id = fields.pop("_id", None)
    if document_id in (None, ""):
        known = ", ".join(list(fields)[:5])
        return Failure(
            "item", "a document without an id", f"The data source yielded a document without `_id` (it has {known})"
        )
    timestamp = fields.pop("_timestamp", None)
    access = fields.pop("_allow_access_control", None)
    name = str(fields.pop("_original_filename", None) or fields.get("name") or fields.get("title") or document_id)
    stamp = timestamp if timestamp is None or isinstance(timestamp, str) else str(timestamp)
    # The callable is the reference: it lives exactly as long as somebody may still want the content.
    content = None if lazy is None else ContentRef(name=name, data={"lazy": lazy}, version=stamp, gives="fields")
    wanted = str(getattr(operation, "value", operation)).lower()
    if wanted not in ("index", "update", "delete"):
        raise UnexpectedAnswer(
            f"The data source yielded the operation {operation!r}; known are index, update and delete"
        )
    return Document(
        id=str(document_id),
        fields=fields,
        timestamp=stamp,
        access=None if access is None else list(access),
        content=content,
        operation=wanted,  # type: ignore[arg-type]  # one of the three, as just checked
    )


def _identity(item: dict[str, Any]) -> Identity:
    identity_id = item.get("_id")
    if not identity_id:
        raise UnexpectedAnswer("The data source yielded an identity without `_id`")
    parameters = item.get("query", {}).get("template", {}).get("params", {})
    return Identity(
        id=str(identity_id),
        fields=dict(item.get("identity") or {}),
        access=[str(one) for one in parameters.get("access_control") or ()],
        timestamp=item.get("_timestamp"),
        document=dict(item),
    )


def _keywords(function: Callable[..., Awaitable[Any]], **keywords: Any) -> Callable[[], Awaitable[Any]]:
    async def call() -> Any:
        return await function(**keywords)

    return call


async def _asyncio(function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Await an asyncio coroutine from Trio. Cancelled: the coroutine is cancelled, too, and waited for."""
    try:
        return await trio_asyncio.aio_as_trio(function)(*arguments)
    except Exception as error:  # foreign code may raise anything; it becomes an error of the source here
        raise _error(error) from error


def _translated(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:  # as above
        raise _error(error) from error


def _error(error: Exception) -> SourceError:
    if isinstance(error, SourceError):
        return error
    text = f"{type(error).__name__}: {error}"
    if "Config" in type(error).__name__:
        return ConfigurationError(text)
    return SourceError(text)

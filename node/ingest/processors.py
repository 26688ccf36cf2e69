"""The processors: each takes its options when a pipeline is read, and then changes documents. Pure, but for `attachment`."""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import attrs
import orjson

from ..errors import ApiError, not_built
from .conditions import Condition, compile_condition
from .fields import MISSING, ProcessorFailed, fill, read, remove, require, text, write
from .options import Options, invalid_option

Work: TypeAlias = Callable[["Run"], None]
Reader: TypeAlias = Callable[[bytes, str | None], Awaitable[str]]

COMMON = {"if", "tag", "description", "ignore_failure", "on_failure"}
INDEXED_CHARS_DEFAULT = 100_000
_NAME_FIELDS = ("name", "filename", "file_name", "title", "path")
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,16}\Z")
_LACKING = frozenset(
    [
        "script",
        "foreach",
        "grok",
        "dissect",
        "csv",
        "kv",
        "dot_expander",
        "fingerprint",
        "reroute",
        "urldecode",
        "bytes",
        "sort",
        "user_agent",
        "geoip",
        "ip_location",
        "date",
        "date_index_name",
        "enrich",
        "inference",
        "network_direction",
        "community_id",
        "registered_domain",
        "circle",
        "uri_parts",
        "redact",
        "set_security_user",
        "terminate",
    ]
)
_TAGS = re.compile(r"<[^>]*>")


class Dropped(Exception):
    """A pipeline decided that the document is not indexed."""


@attrs.define
class Run:
    """One document on its way: its fields, and what `{{_ingest...}}` stands for."""

    document: dict[str, Any]
    metadata: dict[str, Any]
    reader: Reader | None


@attrs.frozen
class Processor:
    """One step of a pipeline."""

    kind: str
    tag: str | None
    condition: Condition | None
    ignore_failure: bool
    on_failure: tuple[Processor, ...]
    work: Work | None
    attachment: Attachment | None = None
    pipeline: str | None = None


@attrs.frozen
class Attachment:
    """Options of the `attachment` processor."""

    field: str
    target: str
    indexed_chars: int
    indexed_chars_field: str | None
    ignore_missing: bool
    remove_binary: bool
    properties: tuple[str, ...]
    resource_name: str | None

    async def run(self, run: Run) -> None:
        """Turn the base64 text of a field into text. Raises `ProcessorFailed`."""
        value = read(run.document, self.field)
        if value is MISSING or value is None:
            if self.ignore_missing:
                return
            raise ProcessorFailed(
                "illegal_argument_exception", f"field [{self.field}] is null or missing, cannot parse."
            )
        if not isinstance(value, str):
            raise ProcessorFailed(
                "illegal_argument_exception", f"field [{self.field}] of another type cannot be cast to bytes"
            )
        try:
            content = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProcessorFailed(
                "illegal_argument_exception", f"field [{self.field}] is not valid base64: {error}"
            ) from error
        if run.reader is None:
            raise ProcessorFailed("exception", "the node was started without a reader of attachments")
        try:
            found = await run.reader(content, self._name(run.document))
        except (ValueError, OSError, RuntimeError) as error:
            raise ProcessorFailed(
                "parse_exception", f"Error parsing document in field [{self.field}]: {error}"
            ) from error
        limit = self._limit(run)
        cut = found if limit < 0 else found[:limit]
        extracted: dict[str, Any] = {"content": cut.strip(), "content_length": len(cut)}
        wanted = {key: part for key, part in extracted.items() if not self.properties or key in self.properties}
        write(run.document, self.target, wanted)
        if self.remove_binary:
            remove(run.document, self.field)

    def _name(self, document: dict[str, Any]) -> str | None:
        """The name of the file, which tells kinds of text apart: what the pipeline says it is, or what sources call it."""
        if self.resource_name is not None:
            name = read(document, self.resource_name)
            return name if isinstance(name, str) else None
        names = [document.get(field) for field in _NAME_FIELDS]
        return next((name for name in names if isinstance(name, str) and _EXTENSION.search(name)), None)

    def _limit(self, run: Run) -> int:
        if self.indexed_chars_field:
            value = read(run.document, self.indexed_chars_field)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        return self.indexed_chars


def read_processors(body: Any, where: str = "processors") -> tuple[Processor, ...]:
    """Read a list of processors. Raises 400 and 501 naming the processor."""
    if not isinstance(body, list):
        raise invalid_option(where, "must be an array of processors")
    return tuple(_processor(one) for one in body)


def _processor(body: Any) -> Processor:
    if not isinstance(body, dict) or len(body) != 1:
        raise invalid_option("processors", "each processor is an object with one member, its kind")
    ((kind, options),) = body.items()
    if kind in _LACKING:
        raise not_built(f"The processor [{kind}]")
    if kind not in _KINDS:
        raise ApiError(400, "parse_exception", f"No processor type exists with name [{kind}]", processor_type=kind)
    if not isinstance(options, dict):
        raise invalid_option(kind, "must be an object", kind)
    how = Options(kind, {key: value for key, value in options.items() if key not in COMMON})
    tag = options.get("tag")
    condition = options.get("if")
    if condition is not None and not isinstance(condition, str):
        raise not_built("A condition of a processor that is no inline script")
    made = _KINDS[kind](how)
    how.finish()
    return Processor(
        kind=kind,
        tag=str(tag) if tag is not None else None,
        condition=compile_condition(condition) if condition is not None else None,
        ignore_failure=options.get("ignore_failure") in (True, "true"),
        on_failure=read_processors(options["on_failure"], "on_failure") if "on_failure" in options else (),
        work=None if isinstance(made, Attachment | str) else made,
        attachment=made if isinstance(made, Attachment) else None,
        pipeline=made if isinstance(made, str) else None,
    )


def _attachment(how: Options) -> Attachment:
    return Attachment(
        field=how.text("field"),
        target=how.text("target_field", "attachment"),
        indexed_chars=how.whole("indexed_chars", INDEXED_CHARS_DEFAULT),
        indexed_chars_field=how.optional("indexed_chars_field"),
        ignore_missing=how.flag("ignore_missing"),
        remove_binary=how.flag("remove_binary"),
        properties=how.texts("properties") if how.has("properties") else (),
        resource_name=how.optional("resource_name"),
    )


def _set(how: Options) -> Work:
    field, value, copy = how.text("field"), how.any("value", None), how.optional("copy_from")
    override, ignore_empty = how.flag("override", True), how.flag("ignore_empty_value")
    if copy is None and value is None:
        raise invalid_option("value", "required property is missing", "set")

    def work(run: Run) -> None:
        path = fill(field, run.document, run.metadata)
        current = read(run.document, path)
        if not override and current is not MISSING and current is not None:
            return
        if copy is not None:
            found = read(run.document, copy)
            if found is MISSING and not ignore_empty:
                require(run.document, copy)
            new = None if found is MISSING else orjson.loads(orjson.dumps(found))
        else:
            new = fill(value, run.document, run.metadata)
        if ignore_empty and new in (None, ""):
            return
        write(run.document, path, new)

    return work


def _append(how: Options) -> Work:
    field, value, repeats = how.text("field"), how.any("value"), how.flag("allow_duplicates", True)

    def work(run: Run) -> None:
        path = fill(field, run.document, run.metadata)
        added = fill(value, run.document, run.metadata)
        current = read(run.document, path)
        held = (
            [] if current is MISSING or current is None else list(current) if isinstance(current, list) else [current]
        )
        for one in added if isinstance(added, list) else [added]:
            if repeats or one not in held:
                held.append(one)
        write(run.document, path, held)

    return work


def _remove(how: Options) -> Work:
    if how.has("keep"):
        raise not_built("[keep] of the processor [remove]")
    fields, ignore = how.texts("field"), how.flag("ignore_missing")

    def work(run: Run) -> None:
        for field in fields:
            path = fill(field, run.document, run.metadata)
            if ignore and read(run.document, path) is MISSING:
                continue
            remove(run.document, path)

    return work


def _rename(how: Options) -> Work:
    field, target = how.text("field"), how.text("target_field")
    ignore, override = how.flag("ignore_missing"), how.flag("override")

    def work(run: Run) -> None:
        path, to = fill(field, run.document, run.metadata), fill(target, run.document, run.metadata)
        if read(run.document, path) is MISSING:
            if ignore:
                return
            raise ProcessorFailed("illegal_argument_exception", f"field [{path}] doesn't exist")
        if read(run.document, to) is not MISSING and not override:
            raise ProcessorFailed("illegal_argument_exception", f"field [{to}] already exists")
        value = read(run.document, path)
        remove(run.document, path)
        write(run.document, to, value)

    return work


def _of_text(change: Callable[[Options], Callable[[str], Any]]) -> Callable[[Options], Work]:
    """Make a processor of a change to texts; lists are changed one by one."""

    def make(how: Options) -> Work:
        field, target, ignore = how.text("field"), how.optional("target_field"), how.flag("ignore_missing")
        changing = change(how)

        def work(run: Run) -> None:
            value = read(run.document, field)
            if value is MISSING or value is None:
                if ignore:
                    return
                if value is MISSING:
                    require(run.document, field)
                raise ProcessorFailed("illegal_argument_exception", f"field [{field}] is null, cannot process it.")
            write(run.document, target or field, _each(changing, value, field))

        return work

    return make


def _each(changing: Callable[[str], Any], value: Any, field: str) -> Any:
    if isinstance(value, list):
        return [_each(changing, one, field) for one in value]
    if not isinstance(value, str):
        raise ProcessorFailed(
            "illegal_argument_exception",
            f"field [{field}] of type [{type(value).__name__}] cannot be cast to [java.lang.String]",
        )
    return changing(value)


def _gsub(how: Options) -> Callable[[str], Any]:
    source, replacement = how.text("pattern"), how.text("replacement")
    try:
        pattern = re.compile(source)
    except re.error as error:
        raise invalid_option("pattern", f"Invalid regex pattern. {error}", "gsub") from error
    # Java refers to groups as $1.
    template = re.sub(r"\$(\d)", r"\\g<\1>", replacement.replace("\\", "\\\\"))
    try:
        pattern.sub(template, "")
    except (re.error, IndexError) as error:
        raise invalid_option("replacement", f"cannot be used with this pattern: {error}", "gsub") from error
    return lambda value: pattern.sub(template, value)


def _split(how: Options) -> Callable[[str], Any]:
    try:
        separator = re.compile(how.text("separator"))
    except re.error as error:
        raise invalid_option("separator", f"Invalid regex pattern. {error}", "split") from error
    keep_empty = how.flag("preserve_trailing")

    def change(value: str) -> list[str]:
        parts = separator.split(value)
        while parts and not keep_empty and not parts[-1]:
            parts.pop()
        return parts

    return change


def _join(how: Options) -> Work:
    field, separator, target = how.text("field"), how.text("separator"), how.optional("target_field")

    def work(run: Run) -> None:
        value = require(run.document, field)
        if not isinstance(value, list):
            raise ProcessorFailed("illegal_argument_exception", f"field [{field}] is no list and cannot be joined")
        write(run.document, target or field, separator.join(text(one) for one in value))

    return work


_TRUE_FALSE: Mapping[str, bool] = {"true": True, "false": False}


def _converted(kind: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_converted(kind, one) for one in value]
    try:
        match kind:
            case "string":
                return text(value)
            case "integer" | "long":
                return int(value, 16) if isinstance(value, str) and value[:2].lower() == "0x" else int(str(value))
            case "float" | "double":
                number = float(value)
                orjson.loads(orjson.dumps(number))
                return number
            case "boolean":
                return _TRUE_FALSE[text(value).lower()]
        for candidate in ("boolean", "integer", "double"):
            try:
                return _converted(candidate, value)
            except ProcessorFailed:
                continue
    except (ValueError, TypeError, KeyError, OverflowError):
        raise ProcessorFailed(
            "illegal_argument_exception", f"unable to convert [{text(value)[:200]}] to {kind}"
        ) from None
    return value


def _convert(how: Options) -> Work:
    field, kind, target, ignore = (
        how.text("field"),
        how.text("type"),
        how.optional("target_field"),
        how.flag("ignore_missing"),
    )
    if kind == "ip":
        raise not_built("[type: ip] of the processor [convert]")
    if kind not in ("string", "integer", "long", "float", "double", "boolean", "auto"):
        raise invalid_option("type", f"type [{kind}] not supported, cannot convert field.", "convert")

    def work(run: Run) -> None:
        value = read(run.document, field)
        if value is MISSING or value is None:
            if ignore:
                return
            require(run.document, field)
            raise ProcessorFailed(
                "illegal_argument_exception", f"Field [{field}] is null, cannot be converted to type [{kind}]"
            )
        write(run.document, target or field, _converted(kind, value))

    return work


def _json(how: Options) -> Work:
    field, target, to_root = how.text("field"), how.optional("target_field"), how.flag("add_to_root")

    def work(run: Run) -> None:
        value = require(run.document, field)
        try:
            found = orjson.loads(value)
        except (orjson.JSONDecodeError, TypeError) as error:
            raise ProcessorFailed("illegal_argument_exception", f"field [{field}] is not JSON: {error}") from error
        if not to_root:
            write(run.document, target or field, found)
        elif isinstance(found, dict):
            run.document.update(found)
        else:
            raise ProcessorFailed("illegal_argument_exception", "cannot add non-map fields to root of document")

    return work


def _fail(how: Options) -> Work:
    message = how.text("message")

    def work(run: Run) -> None:
        raise ProcessorFailed("fail_processor_exception", str(fill(message, run.document, run.metadata)))

    return work


def _drop(how: Options) -> Work:
    def work(run: Run) -> None:
        raise Dropped

    return work


def _pipeline(how: Options) -> str:
    if how.flag("ignore_missing_pipeline"):
        return how.text("name") + "?"
    return how.text("name")


_KINDS: dict[str, Callable[[Options], Work | Attachment | str]] = {
    "attachment": _attachment,
    "set": _set,
    "append": _append,
    "remove": _remove,
    "rename": _rename,
    "lowercase": _of_text(lambda how: str.lower),
    "uppercase": _of_text(lambda how: str.upper),
    "trim": _of_text(lambda how: str.strip),
    "html_strip": _of_text(lambda how: lambda value: html.unescape(_TAGS.sub("\n", value))),
    "gsub": _of_text(_gsub),
    "split": _of_text(_split),
    "join": _join,
    "convert": _convert,
    "json": _json,
    "fail": _fail,
    "drop": _drop,
    "pipeline": _pipeline,
}

"""Between stored JSON and typed values, without loss.

Other programs write the same documents: Kibana, Elasticsearch itself, older and newer services. So a typed value remembers
the object it was read from, and writing it back changes only what was changed: unknown fields stay, an absent field stays
absent, a null stays null, and a stamp that nobody touched keeps its spelling. Invariant: `write(read(cls, source)) == source`.

One cattrs converter serves all documents. A class takes part by inheriting from `Stored`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar, get_args, get_origin

import attrs
import cattrs

JSON: TypeAlias = Any
"""Anything that JSON can say."""

Source: TypeAlias = Mapping[str, JSON]


@attrs.frozen
class Problem:
    """One reason why stored JSON could not be read."""

    path: str
    """Where, as in `filtering[0].draft.rules[2].order`."""
    value: JSON = attrs.field(repr=False)
    """What stood there. Never part of a text: it may be secret."""
    expected: str

    def __str__(self) -> str:
        return f"{self.path or 'the document'} must be {self.expected}, but is {kind_of(self.value)}"


class InvalidDocument(ValueError):
    """Stored JSON does not have the shape the protocol gives it. `problems` lists every place."""

    def __init__(self, what: str, problems: Sequence[Problem]) -> None:
        self.what, self.problems = what, tuple(problems)
        super().__init__(f"{what} cannot be read: " + "; ".join(map(str, problems)) + ". Correct the stored document.")


class _Unreadable(Exception):
    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)


@attrs.frozen(kw_only=True)
class Stored:
    """Base of values that remember the JSON object they were read from."""

    stored: Source | None = attrs.field(default=None, eq=False, repr=False)
    """The object as it was read, or None for a value made here. Values are compared without it."""

    @property
    def unknown(self) -> dict[str, JSON]:
        """What the object held beside the fields of this class."""
        known = {field.name for field in _fields(type(self))}
        return {key: value for key, value in (self.stored or {}).items() if key not in known}


T = TypeVar("T", bound=Stored)


def kind_of(value: JSON) -> str:
    """Name what a JSON value is without showing it."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text" if value else "an empty text"
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            return f"a {type(value).__name__}"


# Stamps

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS = re.compile(r"-?\d{5,}", re.ASCII)


def read_stamp(value: JSON) -> datetime:
    """Read a date as Elasticsearch accepts it: ISO 8601 text or milliseconds since 1970. No offset means UTC.

    Raises `ValueError` for anything else. The answer is aware and in UTC.
    """
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        moment = _from_epoch_ms(value)
    elif isinstance(value, str):
        text = value.strip()
        # A four digit number is a year in Elasticsearch's date grammar, a longer one counts milliseconds.
        if re.fullmatch(r"\d{4}(-\d\d)?", text, re.ASCII):
            text = text + "-01-01"[-3 * (3 - len(text.split("-"))) :]
        moment = _from_epoch_ms(int(text)) if _DIGITS.fullmatch(text) else datetime.fromisoformat(text)
    else:
        raise ValueError("not a date")  # noqa: TRY004 - what a date is not, is a matter of value for the caller
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("outside the calendar") from None


def _from_epoch_ms(value: float) -> datetime:
    try:
        return _EPOCH + timedelta(milliseconds=value)
    except (OverflowError, ValueError):
        raise ValueError("outside the calendar") from None


def write_stamp(moment: datetime) -> str:
    """Write an instant as the service does: ISO 8601 in UTC. A naive one is taken as UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return aware.isoformat()


# Leaves: as forgiving as the mapping of the indices, which takes "true" for true and "5" for 5.


def _read_bool(value: JSON, _: object) -> bool:
    match value:
        case bool():
            return value
        case "true":
            return True
        case "false" | "":
            return False
    raise _expected("true or false", value)


def _read_int(value: JSON, _: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,19}", value.strip(), re.ASCII):
        return int(value)
    raise _expected("a whole number", value)


def _read_text(value: JSON, _: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise _expected("a text", value)


def _read_moment(value: JSON, _: object) -> datetime:
    try:
        return read_stamp(value)
    except (ValueError, OverflowError):
        raise _expected("a date such as 2025-01-31T12:00:00Z", value) from None


def _read_object(value: JSON, _: object) -> dict[str, JSON]:
    if isinstance(value, Mapping):
        return dict(value)
    raise _expected("an object", value)


def _read_enum(value: JSON, kind: type[StrEnum]) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        if isinstance(value, str) and value:
            return _unlisted(kind, value)
        raise _expected("one of " + ", ".join(member.value for member in kind), value) from None


def _unlisted(kind: type[StrEnum], value: str) -> StrEnum:
    """A value that a newer version has stored: read and written back as it is, and equal to none that we know."""
    member = str.__new__(kind, value)
    member._name_ = value.upper()
    member._value_ = value
    return member


def _expected(expected: str, value: JSON) -> _Unreadable:
    return _Unreadable([Problem("", value, expected)])


# Objects


_FIELDS: dict[Any, tuple[attrs.Attribute[Any], ...]] = {}


def _fields(cls: type[Stored]) -> tuple[attrs.Attribute[Any], ...]:
    if cls not in _FIELDS:
        attrs.resolve_types(cls)
        wire = (field for field in attrs.fields(cls) if field.name != "stored" and field.metadata.get("wire", True))
        _FIELDS[cls] = tuple(wire)
    return _FIELDS[cls]


def _prepared(field: attrs.Attribute[Any], raw: JSON) -> JSON:
    """Bring the spellings that a field is known to have into one shape."""
    prepare = field.metadata.get("prepare")
    return prepare(raw) if prepare else raw


def _may_be_null(kind: Any) -> bool:
    return kind is Any or type(None) in get_args(kind)


def _default_of(field: attrs.Attribute[Any]) -> Any:
    default: Any = field.default
    return default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]


def _make_reader(cls: type[Stored]) -> Callable[[JSON, object], Stored]:
    def read_fields(value: JSON, _: object) -> Stored:
        if not isinstance(value, Mapping):
            raise _expected("an object", value)
        given: dict[str, Any] = {}
        problems: list[Problem] = []
        for field in _fields(cls):
            if field.name not in value:
                continue
            raw = _prepared(field, value[field.name])
            # Elasticsearch does not tell null from absent in a field that has a default here.
            if raw is None and not _may_be_null(field.type) and field.default is not attrs.NOTHING:
                continue
            try:
                given[field.name] = converter.structure(raw, field.type)  # type: ignore[arg-type]
            except _Unreadable as unreadable:
                problems += [_inside(field.name, problem) for problem in unreadable.problems]
        if problems:
            raise _Unreadable(problems)
        return cls(**given, stored=value)

    return read_fields


def _make_tuple_reader(kind: Any) -> Callable[[JSON, object], tuple[Any, ...]]:
    (item_kind, _) = get_args(kind)

    def read_items(value: JSON, _: object) -> tuple[Any, ...]:
        # In Elasticsearch one value and a list of one value are the same.
        items = value if isinstance(value, list | tuple) else [value]
        read: list[Any] = []
        problems: list[Problem] = []
        for index, item in enumerate(items):
            try:
                read.append(converter.structure(item, item_kind))
            except _Unreadable as unreadable:
                problems += [_inside(f"[{index}]", problem) for problem in unreadable.problems]
        if problems:
            raise _Unreadable(problems)
        return tuple(read)

    return read_items


def _inside(step: str, problem: Problem) -> Problem:
    joint = "." if problem.path and not problem.path.startswith("[") else ""
    return attrs.evolve(problem, path=f"{step}{joint}{problem.path}")


def _make_writer(cls: type[Stored]) -> Callable[[Stored], dict[str, JSON]]:
    def write_fields(value: Stored) -> dict[str, JSON]:
        stored = value.stored
        # Key order follows what was stored, so that a person comparing two versions sees only what changed.
        written: dict[str, JSON] = dict(stored or {})
        for field in _fields(cls):
            new = converter.unstructure(getattr(value, field.name))
            if stored is None:
                if new is not None:
                    written[field.name] = new
            elif field.name in stored:
                # Most are as they were stored; only for another spelling is it worth to read and write what is there, which in
                # nested objects would double the work with every level.
                present = stored[field.name]
                if not same(new, present) and not same(new, _rewritten(cls, field, present)):
                    written[field.name] = new
            elif field.default is attrs.NOTHING or not same(new, converter.unstructure(_default_of(field))):
                written[field.name] = new
        return written

    return write_fields


def _rewritten(cls: type[Stored], field: attrs.Attribute[Any], raw: JSON) -> JSON:
    """What an unchanged `raw` would be written as."""
    raw = _prepared(field, raw)
    if raw is None and not _may_be_null(field.type) and field.default is not attrs.NOTHING:
        return converter.unstructure(_default_of(field))
    return converter.unstructure(converter.structure(raw, field.type))  # type: ignore[arg-type]


def same(left: JSON, right: JSON) -> bool:
    """Tell whether two JSON values are the same, types included: `1`, `1.0` and `true` all differ."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if type(left) is not type(right):
        return False
    return bool(left == right) or left is right


def _is_variable_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple and len(get_args(kind)) == 2 and get_args(kind)[1] is Ellipsis


def _make_converter() -> cattrs.Converter:
    made = cattrs.Converter(detailed_validation=False)
    made.register_structure_hook(bool, _read_bool)
    made.register_structure_hook(int, _read_int)
    made.register_structure_hook(str, _read_text)
    made.register_structure_hook(datetime, _read_moment)
    made.register_unstructure_hook(datetime, write_stamp)
    # By its own class, which is nearer to the enums than `str` is.
    made.register_structure_hook(StrEnum, _read_enum)
    made.register_unstructure_hook(StrEnum, lambda member: member.value)
    made.register_structure_hook_func(_is_dict, _read_object)
    made.register_unstructure_hook_func(_is_dict, lambda value: value)
    made.register_structure_hook_factory(_is_variable_tuple, _make_tuple_reader)
    made.register_unstructure_hook_func(
        lambda kind: kind is tuple or _is_variable_tuple(kind), lambda items: [made.unstructure(item) for item in items]
    )
    made.register_structure_hook_factory(_is_stored, _make_reader)
    made.register_unstructure_hook_factory(_is_stored, _make_writer)
    return made


def _is_dict(kind: Any) -> bool:
    return kind is dict or get_origin(kind) is dict


def _is_stored(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Stored)


converter = _make_converter()
"""Reads and writes everything the protocol stores."""


def read(cls: type[T], source: JSON, what: str = "The document", **given: Any) -> T:
    """Read one stored object; `given` sets fields that are not stored in it, such as ids.

    Raises `InvalidDocument`, naming `what` and every place that could not be read. The source is not changed and not shared.
    """
    try:
        value = converter.structure(copy.deepcopy(source), cls)
    except _Unreadable as unreadable:
        raise InvalidDocument(what, unreadable.problems) from None
    return attrs.evolve(value, **given) if given else value


def write(value: Stored) -> dict[str, JSON]:
    """Write one value as the JSON object to store. Nothing in it is shared with the value."""
    written: dict[str, JSON] = copy.deepcopy(converter.unstructure(value))
    return written


@attrs.frozen
class Changes:
    """What has to be written to turn one version of a document into the next."""

    doc: dict[str, JSON]
    """For an update that merges objects, as `_update` with `doc` does. Empty: nothing to write."""
    exact: bool
    """Merging `doc` gives the next version and nothing else. Otherwise (a key inside an object went away) replace the whole
    document, under the same sequence number."""

    def __bool__(self) -> bool:
        return bool(self.doc) or not self.exact


def changes(before: Stored, after: Stored) -> Changes:
    """Compare two versions of a document and say what has to be written."""
    old, new = write(before), write(after)
    doc = _difference(old, new)
    return Changes(doc, exact=same(merged(old, doc), new))


def _difference(old: Source, new: Source) -> dict[str, JSON]:
    doc: dict[str, JSON] = {}
    for key, value in new.items():
        if key in old and same(old[key], value):
            continue
        if isinstance(value, Mapping) and isinstance(old.get(key), Mapping):
            if inner := _difference(old[key], value):
                doc[key] = inner
        else:
            doc[key] = value
    return doc


def merged(document: Source, doc: Source) -> dict[str, JSON]:
    """Apply a partial document as `_update` does: objects merge deeply, everything else is replaced."""
    result = dict(document)
    for key, value in doc.items():
        present = result.get(key)
        both_objects = isinstance(value, Mapping) and isinstance(present, Mapping)
        result[key] = merged(present, value) if both_objects else value  # type: ignore[arg-type]
    return result

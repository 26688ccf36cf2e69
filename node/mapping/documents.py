"""From a document to what is indexed of it: the terms and texts of its fields, and the fields it is the first to have."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import attrs

from ..errors import ApiError
from .dates import looks_like_date
from .fields import Field, Malformed, index_value, too_long_for_a_term
from .mapping import Mapping
from .tree import Tree

_METADATA_FIELDS = frozenset(
    [
        "_id",
        "_index",
        "_source",
        "_routing",
        "_seq_no",
        "_version",
        "_field_names",
        "_ignored",
        "_doc_count",
        "_tier",
        "_nested_path",
    ]
)


@attrs.define
class Indexed:
    """What the tables get for one document."""

    terms: list[tuple[int, int, Any]]
    """Rows of the term table: document number, field number, value."""
    texts: dict[int, str]
    """Text by text slot; several values of a field are joined by a gap that phrases do not cross."""
    additions: Tree | None
    """Properties that dynamic mapping has to add before the document can be indexed; then `terms` are incomplete."""


# A run of separators ends no phrase in FTS5, so values of one field are kept apart by a word nobody searches for.
VALUE_GAP = " \ue000 "


def document_parsing(reason: str, cause: str | None = None) -> ApiError:
    """Return the 400 for a document that does not suit its mapping."""
    inner = ApiError(400, "illegal_argument_exception", cause) if cause else None
    return ApiError(400, "document_parsing_exception", reason, cause=inner)


def index_document(mapping: Mapping, doc: int, doc_id: str, source: dict[str, Any]) -> Indexed:
    """Return what is to be indexed of the document with this number. Raises 400 (`document_parsing_exception`, `strict_dynamic_mapping_exception`)."""
    walk = _Walk(mapping, doc, doc_id)
    if not _METADATA_FIELDS.isdisjoint(source):
        name = min(_METADATA_FIELDS & source.keys())
        raise document_parsing(
            f"[1:1] Field [{name}] is a metadata field and cannot be added inside a document. Use the index API request parameters."
        )
    walk.object("", source, mapping.tree.get("dynamic", "true"))
    return Indexed(walk.terms, walk.texts, walk.additions or None)


class _Walk:
    def __init__(self, mapping: Mapping, doc: int, doc_id: str) -> None:
        self.doc = doc
        self.mapping = mapping
        self.fields = mapping.fields
        self.objects = mapping.objects
        self.id = doc_id
        self.terms: list[tuple[int, int, Any]] = []
        self.texts: dict[int, str] = {}
        self.additions: Tree = {}

    def object(self, prefix: str, value: dict[str, Any], dynamic: str) -> None:
        for name, inner in value.items():
            path = prefix + name
            field = self.fields.get(path)
            if field is not None:
                if type(inner) is str and field.type == "text":
                    self.text(field, inner)
                elif isinstance(inner, list):
                    for single in _flat(inner):
                        self.value(field, single)
                else:
                    self.value(field, inner)
            elif path in self.objects:
                self.known_object(path, inner, dynamic)
            else:
                self.unknown(path, name, inner, dynamic)

    def known_object(self, path: str, value: Any, dynamic: str) -> None:
        spec = self.objects[path]
        if spec.get("enabled", True) is False:
            return
        for single in _flat(value) if isinstance(value, list) else (value,):
            if single is None:
                continue
            if not isinstance(single, dict):
                raise document_parsing(
                    f"[1:1] object mapping for [{path}] tried to parse field [{path.rpartition('.')[2]}] as object, "
                    "but found a concrete value"
                )
            self.object(path + ".", single, spec.get("dynamic", dynamic))

    def text(self, field: Field, value: str) -> None:
        """What `value` does, for the most common case: a text, and its keyword beside it."""
        if value and field.searched:
            slot = field.text_slot
            assert slot is not None
            known = self.texts.get(slot)
            self.texts[slot] = value if known is None else known + VALUE_GAP + value
            self.terms.append((self.doc, field.number, 1))
        for subfield in field.subfields:
            if subfield.type == "keyword":
                if len(value) <= subfield.ignore_above:
                    self.keyword(subfield, value)
            else:
                self.value(subfield, value)

    def keyword(self, field: Field, value: str) -> None:
        if too_long_for_a_term(value):
            raise document_parsing(
                f'[1:1] Document contains at least one immense term in field="{field.path}" (whose UTF8 encoding is longer '
                "than the max length 32766), all of which were skipped."
            )
        self.terms.append((self.doc, field.number, value))

    def value(self, field: Field, value: Any) -> None:
        if value is None:
            if field.null_value is None:
                return
            value = field.null_value
        kind = field.type
        if kind == "binary":
            return
        try:
            indexed = index_value(field, value)
        except Malformed as error:
            if field.ignore_malformed and not isinstance(value, dict):
                return
            raise document_parsing(
                f"[1:1] failed to parse field [{field.path}] of type [{kind}] in document with id '{self.id}'. "
                f"Preview of field's value: '{str(value)[:200]}'",
                str(error),
            ) from error
        if kind == "text":
            self.text(field, indexed)
            return
        if kind == "keyword":
            if len(indexed) <= field.ignore_above:
                self.keyword(field, indexed)
        else:
            self.terms.append((self.doc, field.number, indexed))
        for subfield in field.subfields:
            self.value(subfield, value)

    def unknown(self, path: str, name: str, value: Any, dynamic: str) -> None:
        if not name.strip() or "" in name.split("."):
            raise document_parsing(
                f"[1:1] Field name [{name}] cannot be empty, contain only whitespace or have empty parts between dots"
            )
        if value is None or (dynamic == "false" and "." not in name):
            return
        parent = self.parent_dynamic(path, dynamic)
        if parent == "false":
            return
        if parent == "strict":
            at, _, leaf = path.rpartition(".")
            raise ApiError(
                400,
                "strict_dynamic_mapping_exception",
                f"[1:1] mapping set to strict, dynamic introduction of [{leaf}] within [{at or '_doc'}] is not allowed",
            )
        spec = infer(self.mapping, path, value)
        if spec is not None:
            # Given as `a.b.c`, so that objects on the way come into being with it.
            self.additions[path] = spec

    def parent_dynamic(self, path: str, dynamic: str) -> str:
        """Names with dots reach into objects that have a say of their own."""
        parts = path.split(".")
        for at in range(1, len(parts)):
            above = ".".join(parts[:at])
            if above in self.fields:
                raise document_parsing(
                    f"[1:1] cannot index [{path}]: [{above}] is a value of type [{self.fields[above].type}], not an object"
                )
            spec = self.objects.get(above)
            if spec is not None:
                if spec.get("enabled", True) is False:
                    return "false"
                dynamic = spec.get("dynamic", dynamic)
        return dynamic


def infer(mapping: Mapping, path: str, value: Any) -> Tree | None:
    """Return the mapping that dynamic mapping gives to a field that holds this value first; None if it says nothing."""
    if isinstance(value, list):
        value = next((single for single in _flat(value) if single is not None), None)
    if value is None:
        return None
    kind, spec = _guess(mapping, value)
    template = _template(mapping, path, kind)
    if template is not None:
        name = path.rpartition(".")[2]
        spec = _filled(template["mapping"], name, spec.get("type", "object"))
        if "type" not in spec and "properties" not in spec:
            spec = {"type": {"string": "text", "double": "float"}.get(kind, kind), **spec}
    if isinstance(value, dict) and spec.get("type", "object") == "object":
        return {"type": "object", **spec}
    return spec


def _guess(mapping: Mapping, value: Any) -> tuple[str, Tree]:
    if isinstance(value, dict):
        return "object", {}
    if isinstance(value, bool):
        return "boolean", {"type": "boolean"}
    if isinstance(value, int):
        return "long", {"type": "long"}
    if isinstance(value, float):
        return "double", {"type": "float"}
    if mapping.tree.get("date_detection", True) and looks_like_date(value):
        return "date", {"type": "date"}
    if mapping.tree.get("numeric_detection", False):
        for kind, convert in (("long", int), ("double", float)):
            try:
                convert(value)
            except ValueError:
                continue
            return kind, {"type": "long" if kind == "long" else "float"}
    return "string", {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}}


def _template(mapping: Mapping, path: str, kind: str) -> Tree | None:
    name = path.rpartition(".")[2]

    def says(template: Tree, key: str, text: str, default: bool) -> bool:
        patterns = template.get(key)
        if patterns is None:
            return default
        return any(pattern == "*" or fnmatchcase(text, pattern) for pattern in _listed(patterns))

    for entry in mapping.tree.get("dynamic_templates", ()):
        template: Tree = next(iter(entry.values()))
        if (
            says(template, "match_mapping_type", kind, True)
            and says(template, "match", name, True)
            and not says(template, "unmatch", name, False)
            and says(template, "path_match", path, True)
            and not says(template, "path_unmatch", path, False)
        ):
            return template
    return None


def _filled(value: Any, name: str, dynamic_type: str) -> Any:
    if isinstance(value, str):
        return value.replace("{name}", name).replace("{dynamic_type}", dynamic_type)
    if isinstance(value, dict):
        return {key: _filled(inner, name, dynamic_type) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, name, dynamic_type) for inner in value]
    return value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _flat(values: list[Any]) -> list[Any]:
    """Flatten lists of lists without recursion: their depth comes from outside."""
    if not any(isinstance(value, list) for value in values):
        return values
    found: list[Any] = []
    stack = [iter(values)]
    while stack:
        for value in stack[-1]:
            if isinstance(value, list):
                stack.append(iter(value))
                break
            found.append(value)
        else:
            stack.pop()
    return found

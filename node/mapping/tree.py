"""Mappings as Elasticsearch writes them: checked, brought into one form, and merged. Pure; trees are never changed in place."""

from __future__ import annotations

from typing import Any

from ..errors import illegal_argument, not_built
from .fields import check_type, mapper_parsing

DEPTH_MAX = 20
_ROOT_KEYS = {"properties", "dynamic", "dynamic_templates", "date_detection", "numeric_detection", "_meta"}
_LACKING_ROOT_KEYS = {"runtime", "_routing", "_source", "_size", "_data_stream_timestamp", "dynamic_date_formats"}
_OBJECT_KEYS = {"type", "properties", "dynamic", "enabled"}
_DYNAMIC = {"true", "false", "strict"}

Tree = dict[str, Any]


def normalise_root(body: Any) -> Tree:
    """Return a whole mapping in canonical form. Raises 400 or 501."""
    if not isinstance(body, dict):
        raise mapper_parsing("a mapping must be an object")
    for key in body:
        if key in _LACKING_ROOT_KEYS:
            # Spelling out Elasticsearch's own default is no feature.
            if key == "_source" and body[key] in ({}, {"enabled": True}):
                continue
            raise not_built(f"The mapping setting [{key}]")
        if key not in _ROOT_KEYS:
            raise mapper_parsing(f"Root mapping definition has unsupported parameters: [{key} : {body[key]}]")
    root = _normalise_object("", {key: value for key, value in body.items() if key in _ROOT_KEYS}, 0)
    for key in ("date_detection", "numeric_detection"):
        if key in body:
            root[key] = _flag(key, body[key])
    if "_meta" in body:
        root["_meta"] = body["_meta"]
    if "dynamic_templates" in body:
        root["dynamic_templates"] = _dynamic_templates(body["dynamic_templates"])
    return root


def _flag(name: str, value: Any) -> bool:
    if value in (True, "true"):
        return True
    if value in (False, "false"):
        return False
    raise mapper_parsing(f"[{name}] must be true or false, not [{value}]")


def _dynamic_templates(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise mapper_parsing("Dynamic template syntax error. An array of named objects is expected.")
    known = {"match", "unmatch", "match_mapping_type", "path_match", "path_unmatch", "mapping", "match_pattern"}
    for entry in value:
        if not isinstance(entry, dict) or len(entry) != 1:
            raise mapper_parsing("A dynamic template must be defined with a name")
        ((name, template),) = entry.items()
        if not isinstance(template, dict) or not isinstance(template.get("mapping"), dict):
            raise mapper_parsing(f"template [{name}] must have either mapping or runtime set")
        unknown = template.keys() - known
        if unknown & {"runtime", "unmatch_mapping_type"} or template.get("match_pattern", "simple") != "simple":
            raise not_built(f"The dynamic template [{name}] in this form")
        if unknown:
            raise mapper_parsing(f"Illegal dynamic template parameter: [{min(unknown)}]")
        for key in known - {"mapping"}:
            texts = template.get(key, [])
            if not all(isinstance(text, str) for text in (texts if isinstance(texts, list) else [texts])):
                raise mapper_parsing(f"[{key}] of the dynamic template [{name}] must be text")
    return value


def _normalise_object(path: str, body: Tree, depth: int) -> Tree:
    if depth > DEPTH_MAX:
        raise illegal_argument(f"Limit of mapping depth [{DEPTH_MAX}] has been exceeded due to object field [{path}]")
    found: Tree = {}
    if "dynamic" in body:
        dynamic = str(body["dynamic"]).lower()
        if dynamic == "runtime":
            raise not_built(f"[dynamic: runtime] (object [{path}])")
        if dynamic not in _DYNAMIC:
            raise mapper_parsing(f"unknown value [{body['dynamic']}] of [dynamic]; it is true, false or strict")
        found["dynamic"] = dynamic
    if body.get("enabled", True) in (False, "false"):
        found["enabled"] = False
    properties = body.get("properties", {})
    if not isinstance(properties, dict):
        raise mapper_parsing(f"Expected map for property [properties] on field [{path}]")
    normal: Tree = {}
    for name, spec in properties.items():
        _add(normal, path, name, spec, depth)
    if normal:
        found["properties"] = normal
    return found


def _add(properties: Tree, path: str, name: str, spec: Any, depth: int) -> None:
    if not name.strip() or any(not part.strip() for part in name.split(".")):
        raise mapper_parsing("field name cannot be an empty string")
    head, _, rest = name.partition(".")
    full = f"{path}.{head}" if path else head
    if rest:
        if depth >= DEPTH_MAX:
            raise illegal_argument(
                f"Limit of mapping depth [{DEPTH_MAX}] has been exceeded due to object field [{full}]"
            )
        inner = properties.get(head, {})
        if not is_object(inner):
            raise mapper_parsing(f"field [{full}] is both a value and an object")
        nested: Tree = {}
        _add(nested, full, rest, spec, depth + 1)
        properties[head] = merge(inner, {"properties": nested}, full)
        return
    if not isinstance(spec, dict):
        raise mapper_parsing(f"Expected map for property [fields] on field [{full}] but got a {type(spec).__name__}")
    properties[head] = _normalise_field(full, spec, depth)


def _normalise_field(path: str, spec: Tree, depth: int) -> Tree:
    if spec.get("type", "object") == "object":
        unknown = spec.keys() - _OBJECT_KEYS
        if unknown == {"subobjects"}:
            raise not_built(f"The mapping parameter [subobjects] (field [{path}])")
        if unknown:
            raise mapper_parsing(f"unknown parameter [{min(unknown)}] on mapper [{path}] of type [object]")
        found = _normalise_object(path, spec, depth + 1)
        return found if "properties" in found else {"type": "object", **found}
    kind = check_type(path, spec)
    found = {"type": kind, **{name: value for name, value in spec.items() if name not in ("type", "fields")}}
    subfields = spec.get("fields")
    if subfields is not None:
        if not isinstance(subfields, dict):
            raise mapper_parsing(f"[fields] of field [{path}] must be an object")
        for name, sub in subfields.items():
            if not isinstance(sub, dict) or "type" not in sub:
                raise mapper_parsing(f"no type specified for property [{path}.{name}]")
            if check_type(f"{path}.{name}", sub) == "object" or "fields" in sub:
                raise mapper_parsing(f"Type [{sub['type']}] cannot be used in multi field [{path}.{name}]")
        found["fields"] = dict(subfields)
    return found


def is_object(spec: Tree) -> bool:
    """Say whether this part of a tree is an object with further fields, not a field."""
    return bool(spec.get("type", "object") == "object")


def merge(old: Tree, new: Tree, path: str = "") -> Tree:
    """Return `old` with what `new` adds. Raises 400 for a changed type."""
    merged: Tree = {**old, **{key: value for key, value in new.items() if key != "properties"}}
    if "dynamic_templates" in old and "dynamic_templates" in new:
        named = {next(iter(entry)): entry for entry in (*old["dynamic_templates"], *new["dynamic_templates"])}
        merged["dynamic_templates"] = list(named.values())
    if "properties" not in new:
        return merged
    properties: Tree = dict(old.get("properties", {}))
    for name, spec in new["properties"].items():
        full = f"{path}.{name}" if path else name
        properties[name] = _merge_field(full, properties[name], spec) if name in properties else spec
    merged["properties"] = properties
    merged.pop("type", None)
    return merged


def _merge_field(path: str, old: Tree, new: Tree) -> Tree:
    if is_object(old) != is_object(new):
        kinds = ("an object", "a non object") if is_object(new) else ("a non object", "an object")
        raise illegal_argument(f"can't merge {kinds[1]} mapping [{path}] with {kinds[0]} mapping")
    if is_object(old):
        if old.get("enabled", True) != new.get("enabled", True) and "enabled" in new:
            raise illegal_argument(f"the [enabled] parameter can't be updated for the object mapping [{path}]")
        return merge(old, new, path)
    if old["type"] != new["type"]:
        raise illegal_argument(f"mapper [{path}] cannot be changed from type [{old['type']}] to [{new['type']}]")
    for fixed in ("index", "analyzer", "doc_values", "norms", "store"):
        if old.get(fixed) != new.get(fixed) and fixed in new and fixed in old:
            raise illegal_argument(
                f"Mapper for [{path}] conflicts with existing mapper: cannot update parameter [{fixed}]"
            )
    subfields = dict(old.get("fields", {}))
    for name, sub in new.get("fields", {}).items():
        if name in subfields and subfields[name]["type"] != sub["type"]:
            raise illegal_argument(
                f"mapper [{path}.{name}] cannot be changed from type [{subfields[name]['type']}] to [{sub['type']}]"
            )
        subfields[name] = sub
    merged = {**old, **new}
    if subfields:
        merged["fields"] = subfields
    return merged

"""The mapping of one index, ready for use: every field by its path. Immutable; a change makes the next one."""

from __future__ import annotations

from typing import Any

import attrs

from ..errors import illegal_argument
from .fields import Field, make_field
from .tree import Tree, is_object, merge, normalise_root

TOTAL_FIELDS_MAX = 1000


@attrs.frozen(eq=False)
class Mapping:
    """`tree` is what the API shows; the rest is derived from it, except the numbers, which are given once and kept."""

    tree: Tree
    fields: dict[str, Field]
    """Fields and sub-fields by path."""
    objects: dict[str, Tree]
    """Objects by path; the root is ``""``."""
    numbers: dict[str, int]
    text_slots: dict[str, int]

    @classmethod
    def of(cls, body: Any) -> Mapping:
        """Read a mapping. Raises 400 or 501."""
        return _build(normalise_root(body), {}, {}, TOTAL_FIELDS_MAX)

    @classmethod
    def stored(cls, tree: Tree, numbers: dict[str, int], text_slots: dict[str, int]) -> Mapping:
        """Read a mapping that was checked when it was stored."""
        return _build(tree, numbers, text_slots, None)

    def merged(self, body: Any, fields_max: int = TOTAL_FIELDS_MAX) -> Mapping:
        """Return the mapping with the additions of `body`. Raises 400 or 501."""
        return _build(merge(self.tree, normalise_root(body)), self.numbers, self.text_slots, fields_max)

    def leaf_paths(self, pattern_matches: Any) -> list[str]:
        """Return the paths of all fields for which `pattern_matches(path)` holds."""
        return [path for path in self.fields if pattern_matches(path)]


def _build(tree: Tree, numbers: dict[str, int], text_slots: dict[str, int], fields_max: int | None) -> Mapping:
    numbers, text_slots = dict(numbers), dict(text_slots)
    fields: dict[str, Field] = {}
    objects: dict[str, Tree] = {}

    def add(path: str, spec: Tree, source_path: str) -> Field:
        number = numbers.setdefault(path, len(numbers))
        slot = text_slots.setdefault(path, len(text_slots)) if spec["type"] == "text" else None
        fields[path] = make_field(path, spec, number, source_path, slot)
        return fields[path]

    def walk(path: str, spec: Tree) -> None:
        objects[path] = spec
        for name, inner in spec.get("properties", {}).items():
            full = f"{path}.{name}" if path else name
            if is_object(inner):
                walk(full, inner)
                continue
            parent = add(full, inner, full)
            for sub_name, sub in inner.get("fields", {}).items():
                parent.subfields.append(add(f"{full}.{sub_name}", sub, full))

    walk("", tree)
    count = len(fields) + len(objects) - 1
    if fields_max is not None and count > fields_max:
        raise illegal_argument(f"Limit of total fields [{fields_max}] has been exceeded")
    return Mapping(tree, fields, objects, numbers, text_slots)

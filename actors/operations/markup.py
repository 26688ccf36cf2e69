"""HTML that is made of Python values: whatever is not `Markup` already is escaped, wherever it is put."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
LOCAL = ("/", "#", "?")
"""How links and the targets of forms begin: the page leads nowhere else, and never into a script."""


class Markup(str):
    """Text that is HTML already. Only `element` and `joined` make it of anything that is not written in the code."""

    __slots__ = ()


Child: TypeAlias = str | int | Iterable["Child"] | None
Attribute: TypeAlias = str | int | bool | None


def escaped(text: object) -> str:
    """Make text harmless between tags and in quoted attributes."""
    return escape(str(text), quote=True).replace("\x00", "\ufffd")


def joined(*children: Child) -> Markup:
    """Put children one behind the other. Text is escaped, None left out."""
    return Markup("".join(_flat(children)))


def _flat(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str | int):
            yield escaped(child)
        else:
            yield from _flat(child)


def element(tag: str, *children: Child, **attributes: Attribute) -> Markup:
    """Make an element. `class_` is `class`, `aria_label` is `aria-label`; None and False leave an attribute out.

    Raises `ValueError` for a link that leads out of the page, as only a defect makes one.
    """
    begin = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        spelled = name.rstrip("_").replace("_", "-")
        if spelled in ("href", "action", "src") and not str(value).startswith(LOCAL):
            raise ValueError(f"The page does not link to {str(value)!r}.")
        begin.append(spelled if value is True else f'{spelled}="{escaped(value)}"')
    opening = f"<{' '.join(begin)}>"
    return Markup(opening if tag in VOID else f"{opening}{''.join(_flat(children))}</{tag}>")


def foreign(text: object) -> Markup:
    """A name that somebody else chose: escaped, and kept from turning the direction of what stands beside it."""
    return element("bdi", str(text))

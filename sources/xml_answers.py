"""Answers in XML, as object stores give them: parsed safely, without namespaces, which only some servers send."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from defusedxml import DefusedXmlException, ElementTree

from .errors import UnexpectedAnswer


def parsed(content: bytes, name: str) -> Element:
    """Parse an answer of the system called `name`. Raises `UnexpectedAnswer`."""
    try:
        root: Element = ElementTree.fromstring(content)
    except (ElementTree.ParseError, DefusedXmlException, ValueError) as error:
        raise UnexpectedAnswer(f"{name} answered with something else than plain XML.") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def text(element: Element, name: str) -> str | None:
    """The text of a child, None if there is no such child or it is empty."""
    return element.findtext(name) or None

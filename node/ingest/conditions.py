"""The conditions of processors: comparisons of `ctx` fields, a small part of painless. Pure.

Grammar: `ctx.a?.b == true`, `!=`, `<`, `<=`, `>`, `>=`, `&&`, `||`, `!`, brackets, `ctx.containsKey('a')`, texts, numbers, true, false, null.
Anything else is refused when the pipeline is stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

from ..errors import not_built

Condition: TypeAlias = Callable[[dict[str, Any]], bool]
Value: TypeAlias = Callable[[dict[str, Any]], Any]

DEPTH_MAX = 30
_TOKEN = re.compile(
    r"""\s*(?:(?P<contains>ctx\??\.containsKey\(\s*(?:'[^']*'|"[^"]*")\s*\))
    | (?P<path>ctx(?:\??\.[A-Za-z_][A-Za-z0-9_]*|\??\[\s*(?:'[^']*'|"[^"]*")\s*\])+)
    | (?P<number>-?\d+(?:\.\d+)?)
    | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<word>true|false|null)\b
    | (?P<operator>===|!==|==|!=|<=|>=|<|>|&&|\|\||!|\(|\)))""",
    re.VERBOSE,
)
_PART = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[\s*(?:'([^']*)'|\"([^\"]*)\")\s*\]")


def compile_condition(text: str) -> Condition:
    """Read a condition. Raises 501 for anything this node does not understand."""
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(text.rstrip().rstrip(";")):
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            raise _refused(text)
        tokens.append((found.lastgroup, found[found.lastgroup]))
        at = found.end()
    reader = _Reader(text, tokens)
    value = reader.either(0)
    if reader.tokens:
        raise _refused(text)
    return lambda document: value(document) is True


def _refused(text: str) -> Exception:
    return not_built(f"The painless condition [{text[:200]}]")


class _Reader:
    def __init__(self, text: str, tokens: list[tuple[str, str]]) -> None:
        self.text = text
        self.tokens = tokens[::-1]

    def peek(self) -> str:
        return self.tokens[-1][1] if self.tokens and self.tokens[-1][0] == "operator" else ""

    def either(self, depth: int) -> Value:
        if depth > DEPTH_MAX:
            raise _refused(self.text)
        left = self.both(depth)
        while self.peek() == "||":
            self.tokens.pop()
            left = _or(left, self.both(depth))
        return left

    def both(self, depth: int) -> Value:
        left = self.comparison(depth)
        while self.peek() == "&&":
            self.tokens.pop()
            left = _and(left, self.comparison(depth))
        return left

    def comparison(self, depth: int) -> Value:
        if self.peek() == "!":
            self.tokens.pop()
            if depth > DEPTH_MAX:
                raise _refused(self.text)
            inner = self.comparison(depth + 1)
            return lambda document: inner(document) is not True
        left = self.value(depth)
        operator = self.peek()
        if operator in ("==", "===", "!=", "!==", "<", "<=", ">", ">="):
            self.tokens.pop()
            return _compare(left, operator, self.value(depth))
        return left

    def value(self, depth: int) -> Value:
        if not self.tokens:
            raise _refused(self.text)
        kind, token = self.tokens.pop()
        match kind:
            case "path":
                return _path(token)
            case "contains":
                name = token[token.index("(") + 1 : -1].strip()[1:-1]
                return lambda document: name in document
            case "number":
                number = float(token) if "." in token else int(token)
                return lambda document: number
            case "text":
                text = re.sub(r"\\(.)", r"\1", token[1:-1])
                return lambda document: text
            case "word":
                constant = {"true": True, "false": False, "null": None}[token]
                return lambda document: constant
        if token == "(":  # noqa: S105 - a bracket
            inner = self.either(depth + 1)
            if self.peek() != ")":
                raise _refused(self.text)
            self.tokens.pop()
            return inner
        raise _refused(self.text)


def _or(left: Value, right: Value) -> Value:
    return lambda document: left(document) is True or right(document) is True


def _and(left: Value, right: Value) -> Value:
    return lambda document: left(document) is True and right(document) is True


def _path(token: str) -> Value:
    names = [next(part for part in found if part) for found in _PART.findall(token)]

    def value(document: dict[str, Any]) -> Any:
        at: Any = document
        for name in names:
            if not isinstance(at, dict):
                return None
            at = at.get(name)
        return at

    return value


def _compare(left: Value, operator: str, right: Value) -> Value:
    def compare(document: dict[str, Any]) -> bool:
        one, other = left(document), right(document)
        if operator in ("==", "===", "!=", "!=="):
            equal = one == other and isinstance(one, bool) == isinstance(other, bool)
            return equal == (operator[0] == "=")
        try:
            match operator:
                case "<":
                    return bool(one < other)
                case "<=":
                    return bool(one <= other)
                case ">":
                    return bool(one > other)
            return bool(one >= other)
        except TypeError:
            return False

    return compare

"""Messages and the handlers that take them.

A message is a frozen attrs class. A handler is an async method marked with `@handles`; the annotation of its one parameter says
which messages it takes. Both are checked when the actor class is made, so that a mistake shows at import and not at night.

    @attrs.frozen
    class Greet(Request[str]):
        name: str

    class Greeter(Actor):
        @handles
        async def on_greet(self, message: Greet) -> str:
            return f"Hello, {message.name}."
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Generic, TypeVar

import attrs

R = TypeVar("R", covariant=True)
HandlerT = TypeVar("HandlerT", bound=Callable[..., Awaitable[Any]])

_MARK = "__callboard_handles__"


class Request(Generic[R]):
    """Base of messages that are answered: `await ref.ask(request)` returns an `R`."""

    __slots__ = ()

    cancel_with_asker: ClassVar[bool] = False
    """Whether the handler is cancelled when nobody waits for its answer any more.

    Right for work that only the asker wants, such as a query or a download. Wrong for work that must not be left in the
    middle: a handler that is cancelled has to leave the actor's state whole, since the actor lives on.
    """


def handles(method: HandlerT) -> HandlerT:
    """Mark an async method of an actor as the handler of the message type that its parameter is annotated with."""
    setattr(method, _MARK, True)
    return method


def handler_table(actor_class: type[Any]) -> dict[type[Any], str]:
    """Find the handlers of an actor class: message type -> name of the method.

    Raises `TypeError` that names the method: it is not async, takes other than one message, its annotation cannot be resolved
    or is not a frozen attrs class, or two handlers take the same message.
    """
    table: dict[type[Any], str] = {}
    for name in dir(actor_class):
        method = inspect.getattr_static(actor_class, name)
        if not getattr(method, _MARK, False):
            continue
        where = f"{actor_class.__qualname__}.{name}"
        if not inspect.iscoroutinefunction(method):
            raise TypeError(f"the handler {where} must be `async def`")
        parameters = list(inspect.signature(method).parameters.values())
        if len(parameters) != 2:
            raise TypeError(f"the handler {where} must take one message besides self")
        for message_class in _message_classes(method, parameters[1], where):
            if table.get(message_class, name) != name:
                raise TypeError(
                    f"{message_class.__name__} is handled by both {table[message_class]} and {name} of {actor_class.__qualname__}"
                )
            table[message_class] = name
    return table


def _message_classes(method: Any, parameter: inspect.Parameter, where: str) -> list[type[Any]]:
    annotation = parameter.annotation
    if isinstance(annotation, str):
        names = {
            **vars(sys.modules[method.__module__]),
            **dict(zip(method.__code__.co_freevars, _cells(method), strict=False)),
        }
        try:
            annotation = eval(annotation, names)  # noqa: S307 - an annotation of the program itself
        except NameError as error:
            raise TypeError(
                f"the message type of {where} cannot be found: {error}. Define it at the top of the module"
            ) from error
    if annotation is inspect.Parameter.empty:
        raise TypeError(f"the handler {where} must say which message it takes: annotate its parameter")
    is_union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    classes = list(typing.get_args(annotation)) if is_union else [annotation]
    for one in classes:
        if not (isinstance(one, type) and attrs.has(one)):
            raise TypeError(f"{where} takes {one!r}, which is not an attrs class")
        if one.__setattr__ is object.__setattr__ or not _is_frozen(one):
            raise TypeError(f"{where} takes {one.__name__}, which is not frozen: a message must not change on its way")
    return classes


def _is_frozen(message_class: type[Any]) -> bool:
    return message_class.__setattr__.__module__.startswith("attr")


def _cells(method: Any) -> list[Any]:
    return [cell.cell_contents for cell in method.__closure__ or ()]

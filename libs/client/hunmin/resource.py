"""Turns a function that describes a call into a method that sends it: blocking or awaited, as the client is.

So each call is declared once, and a type checker sees `T` on a `Client` and a coroutine of `T` on an `AsyncClient`.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from hunmin.call import Call, Pages, Poll, Stream
from hunmin.sending import AsyncSender, Sender

P = ParamSpec("P")
T = TypeVar("T")
ItemT = TypeVar("ItemT")
SenderT = TypeVar("SenderT", bound=Sender | AsyncSender)


class Resource(Generic[SenderT]):
    """Calls that belong together, on one sender."""

    def __init__(self, sender: SenderT) -> None:
        self._sender = sender


class sends(Generic[P, T]):
    """Makes a method that returns a `Call` (or a `Poll`) return, or await, what comes of it."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Call[T] | Poll[T]]) -> None:
        self._describe = describe
        self.__doc__ = describe.__doc__

    @overload
    def __get__(self, resource: Resource[Sender], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, resource: Resource[AsyncSender], owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, resource: None, owner: type) -> "sends[P, T]": ...
    def __get__(self, resource: Resource[Any] | None, owner: type) -> Any:
        return self if resource is None else _method(self._describe, resource, resource._sender.send)


class iterates(Generic[P, ItemT]):
    """Makes a method that returns `Pages` or a `Stream` iterate, or iterate asynchronously, over the items."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Pages[ItemT] | Stream[ItemT]]) -> None:
        self._describe = describe
        self.__doc__ = describe.__doc__

    @overload
    def __get__(self, resource: Resource[Sender], owner: type) -> Callable[P, Generator[ItemT, None, None]]: ...
    @overload
    def __get__(self, resource: Resource[AsyncSender], owner: type) -> Callable[P, AsyncGenerator[ItemT, None]]: ...
    @overload
    def __get__(self, resource: None, owner: type) -> "iterates[P, ItemT]": ...
    def __get__(self, resource: Resource[Any] | None, owner: type) -> Any:
        return self if resource is None else _method(self._describe, resource, resource._sender.items)


def _method(describe: Callable[..., Any], resource: Resource[Any], act: Callable[[Any], Any]) -> Callable[..., Any]:
    @wraps(describe)
    def method(*args: Any, **kwargs: Any) -> Any:
        return act(describe(resource, *args, **kwargs))

    return method

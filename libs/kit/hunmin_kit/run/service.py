"""What a service is to the process that runs it, and how services are found."""

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import entry_points
from typing import Any, Generic

from fastapi import FastAPI

from hunmin_kit.run.errors import StartError
from hunmin_kit.run.platform import Platform
from hunmin_kit.run.settings import SettingsT

ENTRY_POINTS = "hunmin.services"


@dataclass(frozen=True, kw_only=True)
class Service(Generic[SettingsT]):
    """A service: its name, its settings, and the composition root that builds its application.

    `build` is entered after the services it `needs` and left before them; leaving it is its shutdown. `migrations` is
    the dotted package of its Alembic chain; None means that it has no schema. `public` opens its port in `run all`.
    `preload` imports what takes seconds, on a thread, while the database starts.
    """

    name: str
    settings: type[SettingsT]
    build: Callable[[Platform, SettingsT], AbstractAsyncContextManager[FastAPI]]
    needs: tuple[str, ...] = ()
    migrations: str | None = None
    preload: Callable[[], None] | None = None
    public: bool = False


def installed_names() -> list[str]:
    """Return the names of the services installed here, without importing them."""
    return sorted(point.name for point in entry_points(group=ENTRY_POINTS))


def find(name: str) -> Service[Any]:
    """Import and return the service of that name; a StartError if it is not installed."""
    for point in entry_points(group=ENTRY_POINTS, name=name):
        service: Service[Any] = point.load()
        return service
    names = installed_names()
    close = get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise StartError(f"There is no service {name!r} here.{hint} Installed: {', '.join(names) or 'none'}.")


def in_order(services: Iterable[Service[Any]]) -> list[Service[Any]]:
    """Return `services` so that each comes after those it needs; a StartError if they need each other."""
    by_name = {service.name: service for service in services}
    graph = {name: [need for need in service.needs if need in by_name] for name, service in by_name.items()}
    try:
        return [by_name[name] for name in TopologicalSorter(graph).static_order()]
    except CycleError as error:
        raise StartError(f"Services need each other in a circle: {' → '.join(error.args[1])}.") from None

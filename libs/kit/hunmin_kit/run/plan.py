"""What one process is to run: every setting read and checked before anything starts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import HttpUrl, TypeAdapter, ValidationError

from hunmin_kit.run.errors import StartError
from hunmin_kit.run.service import Service, find, in_order, installed_names
from hunmin_kit.run.settings import PREFIX, PlatformSettings, Settings, check_names, load_settings, service_prefix


@dataclass(frozen=True)
class Plan:
    """What one process is to run, checked."""

    services: list[Service[Any]]
    platform: PlatformSettings
    settings: Mapping[str, Settings]
    urls: Mapping[str, str]  # of the services that are called over the network

    @property
    def needs_database(self) -> bool:
        """Whether any service has a schema."""
        return any(service.migrations for service in self.services)


def plan(services: Iterable[Service[Any]], environ: Mapping[str, str]) -> Plan:
    """Read and check every setting; a StartError says in one line what is wrong."""
    ordered = in_order(services)
    here = {service.name for service in ordered}
    callees = {need for service in ordered for need in service.needs}
    known = {PREFIX: PlatformSettings} | {service_prefix(service.name): service.settings for service in ordered}
    others = [service_prefix(name) for name in installed_names() if name not in here]
    check_names(environ, known, others, map(service_prefix, callees))
    platform = load_settings(PlatformSettings, PREFIX, environ)
    settings = {
        service.name: load_settings(service.settings, service_prefix(service.name), environ) for service in ordered
    }
    urls = {name: url for name in callees if (url := _url_of(name, here, environ)) is not None}
    resolved = platform.model_copy(update={"home": platform.home.expanduser().resolve()})
    return Plan(ordered, resolved, settings, urls)


def _url_of(name: str, here: set[str], environ: Mapping[str, str]) -> str | None:
    """Return where `name` is called over the network, or None if it is called in this process."""
    prefix = service_prefix(name)
    url = environ.get(f"{prefix}URL")
    if url is not None:
        try:
            return str(TypeAdapter(HttpUrl).validate_python(url))
        except ValidationError:
            raise StartError(f"{prefix}URL is not valid: it is written as http://host:port.") from None
    if name in here:
        return None
    if name not in installed_names():
        raise StartError(f"{prefix}URL is not set, and the service {name} is not installed here. Set it.")
    port = load_settings(find(name).settings, prefix, environ).port
    return f"http://127.0.0.1:{port}"

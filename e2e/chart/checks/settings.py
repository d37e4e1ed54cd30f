"""Rules for settings: the services' own code reads what the chart sets, as at a start."""

import argparse
from collections.abc import Iterator
from typing import Any

from chart.rendering import Object, Pod, environment, pods
from hunmin_gateway.service import GatewaySettings
from hunmin_kit.run.errors import StartError
from hunmin_kit.run.plan import plan
from hunmin_kit.run.service import find
from hunmin_kit.run.settings import load_settings, service_prefix

# What stands in the Secrets, as far as a setting has a form.
_SECRETS = {
    "url": "postgresql://user:password@host/database",
    "backends": '{"small": {"kind": "vllm", "url": "http://vllm"}}',
}
_SECRET = "0123456789" * 4


def settings_are_read(found: list[Object]) -> Iterator[str]:
    """Every service, and every job of its image, would start with its variables, and reads all of them."""
    for pod in pods(found):
        command = pod.spec["containers"][0].get("command", [])
        if command[:1] != ["hunmin"]:
            continue
        environ = variables(pod)
        service = command[2] if command[1] in ("run", "migrate") else _service_of(pod)
        needs = find(service).needs
        # Its image has no other service, so a variable of one is a mistake, unless it says where one is that is called.
        strangers = {
            name
            for other in ("gateway", "generation", "tokenizer", "tuning")
            for name in environ
            if other != service and name.startswith(service_prefix(other)) and name != f"{service_prefix(other)}URL"
        }
        yield from (f"{pod.name} has {name}, which {service} does not read" for name in sorted(strangers))
        yield from (
            f"{pod.name} is not told where {each} is" for each in needs if f"{service_prefix(each)}URL" not in environ
        )
        try:
            plan([find(service)], environ)
            if command[1:3] == ["identity", "init"]:
                load_settings(GatewaySettings, service_prefix("gateway"), environ)
        except StartError as error:
            yield f"{pod.name} would not start: {error}"


def commands_are_known(found: list[Object]) -> Iterator[str]:
    """Every command of ours parses."""
    from hunmin_gateway.commands import identity
    from hunmin_kit.run import cli, event_commands

    parser = argparse.ArgumentParser(exit_on_error=False)
    commands: Any = parser.add_subparsers(required=True)
    for add in (cli.add_run, cli.add_migrate, event_commands.add_topics, identity.add):
        add(commands)
    for pod in pods(found):
        command = pod.spec["containers"][0].get("command", [])
        if command[:1] == ["hunmin"]:
            try:
                parser.parse_args(command[1:])
            except (argparse.ArgumentError, SystemExit):
                yield f"{pod.name} runs {command}, which hunmin does not know"


def variables(pod: Pod) -> dict[str, str]:
    """Return a pod's variables, those from Secrets with a value of their form."""
    environ = {}
    for name, value in environment(pod.spec["containers"][0]).items():
        if isinstance(value, str):
            environ[name] = value
        elif not value["secretKeyRef"].get("optional"):
            key = value["secretKeyRef"]["key"]
            environ[name] = _SECRETS.get(
                key.removesuffix("-url") if key == "url" else "url" if key.endswith("-url") else key, _SECRET
            )
    return environ


def _service_of(pod: Pod) -> str:
    """Return the service in whose image a job runs."""
    image: str = pod.spec["containers"][0]["image"]
    return image.rpartition("/hunmin-")[2].split(":")[0]

"""The command `hunmin`: run services, migrate schemas."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

from hunmin_contracts.errors import HunminError

from hunmin_kit.observe import logs
from hunmin_kit.run.errors import StartError
from hunmin_kit.run.plan import Plan, plan
from hunmin_kit.run.process import run
from hunmin_kit.run.service import Service, find, installed_names

EVERYTHING = "all"
EXIT_NOT_STARTED = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command, and exit with 0, or with 2 and one line on stderr if it could not start."""
    options = _parser().parse_args(arguments)
    try:
        names = installed_names() if EVERYTHING in options.names or not options.names else options.names
        services = [find(name) for name in dict.fromkeys(names)]
        checked = plan(services, os.environ)
        _configure_logs(checked)
        if options.command == "migrate":
            asyncio.run(_migrate(checked))
        else:
            asyncio.run(run(checked, opened(services, options.names)))
    except (StartError, HunminError) as error:
        message = error.message if isinstance(error, HunminError) else str(error)
        sys.stderr.write(f"hunmin: {message}\n")
        sys.exit(EXIT_NOT_STARTED)


def opened(services: list[Service[Any]], names: list[str]) -> list[Service[Any]]:
    """Return the services whose ports are opened: the public ones of a whole platform, else each that was named."""
    return [service for service in services if service.public] if EVERYTHING in names else services


async def _migrate(checked: Plan) -> None:
    if not checked.needs_database:
        return
    from hunmin_kit.run import storage  # see there

    async with storage.database(checked) as url:
        await storage.migrate_all(checked, url)


def _configure_logs(checked: Plan) -> None:
    form = checked.platform.log_format or ("console" if sys.stderr.isatty() else "json")
    logs.configure(level=checked.platform.log_level, form=form)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hunmin", description="Hunmin Studio: a self-hosted Korean language-model studio."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="run services in this process until SIGTERM")
    running.add_argument("names", nargs="+", metavar="NAME", help=f"a service, or `{EVERYTHING}`")
    migrating = commands.add_parser("migrate", help="bring the schemas of services to this release")
    migrating.add_argument("names", nargs="*", metavar="NAME", help="a service; none: every one")
    return parser

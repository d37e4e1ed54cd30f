"""The subcommands `hunmin run` and `hunmin migrate`."""

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

import uvloop
from hunmin_contracts.errors import HunminError

from hunmin_kit.observe import logs
from hunmin_kit.run.errors import StartError
from hunmin_kit.run.plan import Plan, plan
from hunmin_kit.run.process import run
from hunmin_kit.run.service import Service, find, installed_names

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EVERYTHING = "all"
EXIT_NOT_STARTED = 2


def add_run(commands: "Commands") -> None:
    """Add `hunmin run`."""
    parser = commands.add_parser("run", help="run services in this process until SIGTERM")
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"a service, or `{EVERYTHING}`")
    parser.set_defaults(act=_act)


def add_migrate(commands: "Commands") -> None:
    """Add `hunmin migrate`."""
    parser = commands.add_parser("migrate", help="bring the schemas of services to this release")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a service; none: every one")
    parser.set_defaults(act=_act)


def _act(options: argparse.Namespace) -> int:
    """Run or migrate; return 0, or 2 after one line on stderr if it could not start."""
    try:
        names = installed_names() if EVERYTHING in options.names or not options.names else options.names
        services = [find(name) for name in dict.fromkeys(names)]
        checked = plan(services, os.environ)
        _configure_logs(checked)
        if options.command == "migrate":
            asyncio.run(_migrate(checked))
        else:
            uvloop.run(run(checked, opened(services, options.names)))
    except (StartError, HunminError) as error:
        message = error.message if isinstance(error, HunminError) else str(error)
        sys.stderr.write(f"hunmin: {message}\n")
        return EXIT_NOT_STARTED
    return 0


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

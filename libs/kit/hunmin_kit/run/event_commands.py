"""The subcommands `hunmin topics` and `hunmin events`."""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.events import TOPICS
from opentelemetry.trace import NoOpTracer

from hunmin_kit.run.errors import StartError
from hunmin_kit.run.plan import Plan, plan
from hunmin_kit.run.service import find, installed_names

if TYPE_CHECKING:
    from hunmin_kit.data.database import Database

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

Action = Callable[[Plan, argparse.Namespace], Awaitable[list[str]]]
EXIT_FAILED = 2
_SHOWN_LETTERS = 1000


def add_topics(commands: "Commands") -> None:
    """Add `hunmin topics`."""
    parser = commands.add_parser("topics", help="create the topics of events on HUNMIN_KAFKA_SERVERS")
    parser.set_defaults(act=_acting(_create_topics))


def add_events(commands: "Commands") -> None:
    """Add `hunmin events dead list` and `hunmin events dead redrive`."""
    parser = commands.add_parser("events", help="look after events")
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    dead = subjects.add_parser("dead", help="events that a consumer could not handle")
    actions = dead.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list them, oldest first")
    listing.add_argument("--topic", help="those of this topic alone")
    listing.set_defaults(act=_acting(_list_dead))
    redriving = actions.add_parser("redrive", help="have them tried again, by the consumer that could not")
    redriving.add_argument("letters", nargs="*", metavar="LETTER", help="as `list` names them: schema/number")
    redriving.add_argument("--topic", help="all of this topic")
    redriving.add_argument("--all", action="store_true", help="all there are")
    redriving.set_defaults(act=_acting(_redrive))


def _acting(action: Action) -> Callable[[argparse.Namespace], int]:
    """Return what argparse calls: it prints the lines of `action`, or one on stderr and returns 2."""

    async def lines(options: argparse.Namespace) -> list[str]:
        return await action(plan([find(name) for name in installed_names()], os.environ), options)

    def act(options: argparse.Namespace) -> int:
        try:
            sys.stdout.writelines(f"{line}\n" for line in asyncio.run(lines(options)))
        except (StartError, HunminError) as error:
            message = error.message if isinstance(error, HunminError) else str(error)
            sys.stderr.write(f"hunmin: {message}\n")
            return EXIT_FAILED
        return 0

    return act


async def _create_topics(checked: Plan, _: argparse.Namespace) -> list[str]:
    settings = checked.platform
    if settings.kafka_servers is None:
        return ["HUNMIN_KAFKA_SERVERS is not set: events are read from PostgreSQL, which needs no topics."]
    from hunmin_kit.events.kafka_bus import create_topics
    from hunmin_kit.events.timing import Timing
    from hunmin_kit.run.backbone import kafka_cluster

    created = create_topics(
        kafka_cluster(settings, settings.kafka_servers),
        TOPICS,
        partitions=settings.kafka_partitions,
        replication=settings.kafka_replication,
        keep_s=Timing().keep_s,
    )
    return [f"Created {name}." for name in created] or ["Every topic is there."]


async def _list_dead(checked: Plan, options: argparse.Namespace) -> list[str]:
    from hunmin_kit.events.attempts import dead_letters

    lines = []
    async with aclosing(_schemas(checked)) as schemas:
        async for database in schemas:
            async with database.session() as session:
                letters = await dead_letters(session, topic=options.topic, limit=_SHOWN_LETTERS + 1)
            for letter in letters[:_SHOWN_LETTERS]:
                head = f"{database.schema}/{letter.number}  {letter.died_at:%Y-%m-%d %H:%M:%S}  {letter.consumer}"
                what = f"{letter.topic}  key {letter.key!r}  {letter.size:,} bytes  {letter.attempts} attempts"
                lines += [f"{head}  {what}", f"    {letter.error.splitlines()[0]}"]
            if len(letters) > _SHOWN_LETTERS:
                lines.append(f"{database.schema} has more. Redrive these first, or name a topic.")
    return lines or ["There are no dead letters."]


async def _redrive(checked: Plan, options: argparse.Namespace) -> list[str]:
    from hunmin_kit.events.attempts import redrive

    if sum([bool(options.letters), options.topic is not None, options.all]) != 1:
        raise StartError("Name the letters to redrive, or --topic TOPIC, or --all: one of the three.")
    wanted = _numbers(options.letters)
    count = 0
    async with aclosing(_schemas(checked)) as schemas:
        async for database in schemas:
            numbers = wanted.get(database.schema, []) if options.letters else None
            async with database.session() as session:
                count += await redrive(session, topic=options.topic, numbers=numbers)
    if options.letters and count < len(set(options.letters)):
        raise HunminError(
            ErrorCode.NOT_FOUND,
            f"{count} redriven; the others are no dead letters. `hunmin events dead list` tells those there are.",
        )
    return [f"{count} redriven: their consumers try them now."]


def _numbers(letters: list[str]) -> dict[str, list[int]]:
    """Return the numbers of `schema/number`, by schema."""
    numbers: dict[str, list[int]] = {}
    for letter in letters:
        schema, _, number = letter.partition("/")
        if not number.isdecimal():
            raise StartError(f"{letter!r} is no letter. `hunmin events dead list` names them, as schema/number.")
        numbers.setdefault(schema, []).append(int(number))
    return numbers


async def _schemas(checked: Plan) -> AsyncGenerator["Database", None]:
    """Yield the schema of each service that has events."""
    # Imported here: SQLAlchemy and Alembic load slowly, and every `hunmin` reads this module.
    from hunmin_kit.data.database import Database
    from hunmin_kit.events.tables import ATTEMPTS
    from hunmin_kit.run import storage

    async with storage.database(checked) as url:
        for name in [storage.schema_of(service) for service in checked.services if service.migrations is not None]:
            database = Database(url, schema=name, tracer=NoOpTracer(), pool_size=1)
            try:
                if await database.has_table(ATTEMPTS.name):
                    yield database
            finally:
                await database.close()

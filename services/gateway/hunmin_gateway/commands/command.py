"""What the operator's commands share: the service opened on the settings of the server, and how they end."""

import argparse
import asyncio
import getpass
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from hunmin_contracts.audit import ActorKind
from hunmin_contracts.errors import HunminError
from hunmin_kit.observe import logs
from hunmin_kit.run.errors import StartError
from hunmin_kit.run.hosting import hosted
from hunmin_kit.run.plan import plan
from hunmin_kit.run.settings import service_prefix
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.audit.audit import Actor, Audit
from hunmin_gateway.login.doors import LoginParts, login_of_app
from hunmin_gateway.parts import parts_of_app
from hunmin_gateway.service import SERVICE

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXIT_FAILED = 2


@dataclass(frozen=True)
class Desk:
    """One transaction on the database of the server's settings; it is committed when the command has ended."""

    session: AsyncSession
    pepper: bytes
    audit: Audit
    login: LoginParts
    url: str  # where browsers reach the studio


WordT = TypeVar("WordT", bound=StrEnum)
Work = Callable[[Desk, argparse.Namespace], Awaitable[str]]


def acts(parser: argparse.ArgumentParser, work: Work) -> None:
    """Let the command of `parser` do `work`, and print what it returns; or one line on stderr, and exit with 2."""
    parser.set_defaults(act=_act, work=work)


def _act(options: argparse.Namespace) -> int:
    return ended(answer(options, os.environ))


def ended(work: Coroutine[Any, Any, str]) -> int:
    """Do `work` and print what it returns, or one line on stderr; return the exit code."""
    logs.configure(level="WARNING", form="console")
    try:
        text = asyncio.run(work)
    except (StartError, HunminError) as error:
        sys.stderr.write(f"hunmin: {error.message if isinstance(error, HunminError) else error}\n")
        return EXIT_FAILED
    sys.stdout.write(f"{text}\n")
    return 0


async def answer(options: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """Do the work of a command that was parsed, on the database that `environ` names; return what to print."""
    work: Work = options.work
    async with _desk(environ) as desk:
        return await work(desk, options)


@asynccontextmanager
async def _desk(environ: Mapping[str, str]) -> AsyncGenerator[Desk, None]:
    # The service is built as for a start, only without a port: the same settings, database and pepper by construction.
    # It calls no other service here, so none has to be found.
    nowhere = {f"{service_prefix(name)}URL": "http://nowhere.invalid" for name in SERVICE.needs}
    checked = plan([SERVICE], nowhere | dict(environ))
    async with hosted(checked) as up:
        app = up.apps[SERVICE.name]
        parts, login = parts_of_app(app), login_of_app(app)
        url = login.public_url or f"http://127.0.0.1:{checked.settings[SERVICE.name].port}"
        async with parts.database.session() as session:
            actor = Actor(ActorKind.CLI, _login(), None)
            yield Desk(session, parts.pepper, Audit(session, parts.events, actor), login, url)


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"uid {os.getuid()}"


def one_of(kind: type[WordT]) -> Callable[[str], WordT]:
    """Return the type of an argument that is one of a few words; `choices` would tell them as Python writes them."""

    def read(text: str) -> WordT:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(kind)}") from None

    return read


def moment(when: datetime | None) -> str:
    """Return a time as tables show it."""
    return "never" if when is None else f"{when:%Y-%m-%d %H:%M}"

"""What the subcommands share: where they write, and how they end."""

import argparse
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import TypeAlias

from rich.console import Console

from hunmin.client import Client
from hunmin.errors import StudioError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_FILE_WIDTH = 160  # where there is no terminal, a table need not be narrow


class Exit(IntEnum):
    """How a subcommand ends, for scripts."""

    DONE = 0
    FAILED = 1  # the studio refused, failed or was not there
    USAGE = 2  # argparse's own
    UNFIT_DATASET = 3  # its report does not pass; no job was made
    JOB_ENDED = 4  # the job failed, or was cancelled
    INTERRUPTED = 130  # the shell's, for Ctrl-C


class UsageError(Exception):
    """The arguments make no sense together."""


def run(act: Callable[[Client, Console], Exit]) -> int:
    """Do `act` with a client as the environment has it; what goes wrong is one line on stderr."""
    try:
        with Client() as client:
            return act(client, Console(width=None if sys.stdout.isatty() else _FILE_WIDTH))
    except UsageError as error:
        return _end(str(error), Exit.USAGE)
    except (StudioError, OSError, ValueError) as error:
        return _end(str(error), Exit.FAILED)
    except KeyboardInterrupt:
        return _end("interrupted.", Exit.INTERRUPTED)


def say(console: Console, text: str) -> None:
    """Write a text as it is, its lines as long as they are."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _end(message: str, status: Exit) -> Exit:
    sys.stderr.write(f"hunmin: {message}\n")
    return status

"""The command `hunmin`. It knows no subcommand: each is an entry point of the group `hunmin.commands`, in any package.

An entry point has the subcommand's name, and is a function that adds its parser to argparse's subparsers, with what to
do as the default `act`. So `hunmin tune` loads no server, and is there where no server is.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

GROUP = "hunmin.commands"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the subcommand that `arguments` name, and exit as it says."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="hunmin", description="Hunmin Studio: a self-hosted Korean language-model studio."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    installed = entry_points(group=GROUP)
    named = [point for point in installed if given and point.name == given[0]]
    for point in named or sorted(installed, key=lambda point: point.name):
        point.load()(commands)
    options = parser.parse_args(given)
    sys.exit(options.act(options))

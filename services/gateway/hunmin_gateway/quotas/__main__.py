"""The operator's way to limits: `python -m hunmin_gateway.quotas set ACCOUNT LIMIT VALUE | list | remove ID`.

Works on the database of the server's settings, whether or not a server runs.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence

from hunmin_contracts.errors import HunminError
from hunmin_contracts.ids import QuotaId
from hunmin_contracts.quotas import ANY, LimitName, Purpose
from hunmin_kit.observe import logs
from hunmin_kit.run.errors import StartError
from hunmin_kit.run.hosting import hosted
from hunmin_kit.run.plan import plan
from hunmin_kit.run.settings import service_prefix

from hunmin_gateway.parts import parts_of_app
from hunmin_gateway.quotas.limits import LARGEST, AccountQuota, Limits
from hunmin_gateway.service import SERVICE


def main() -> None:
    """Run the command, and exit with 0, or with 2 and one line on stderr."""
    logs.configure(level="WARNING", form="console")
    try:
        text = asyncio.run(run(sys.argv[1:], os.environ))
    except (StartError, HunminError) as error:
        sys.stderr.write(f"quotas: {error.message if isinstance(error, HunminError) else error}\n")
        sys.exit(2)
    sys.stdout.write(f"{text}\n")


async def run(arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    """Do what `arguments` say on the database that `environ` names; return what to print."""
    options = _parser().parse_args(arguments)
    # The service is built as for a start, only without a port. It calls no other service here, so none has to be found.
    nowhere = {f"{service_prefix(name)}URL": "http://nowhere.invalid" for name in SERVICE.needs}
    async with (
        hosted(plan([SERVICE], nowhere | dict(environ))) as up,
        parts_of_app(up.apps[SERVICE.name]).database.session() as session,
    ):
        return await _work(Limits(session), options)


async def _work(limits: Limits, options: argparse.Namespace) -> str:
    match options.command:
        case "set":
            limit_id = await limits.set(
                options.account, options.limit, options.value, model=options.model, purpose=options.purpose
            )
            return f"{limit_id}: {options.limit} of account {options.account} is {options.value} from now on."
        case "remove":
            await limits.remove(QuotaId(options.id))
            return f"{options.id} is removed."
        case _:
            return "\n".join([_HEAD, *map(_line, await limits.list())])


_COLUMNS = "{:<30} {:<12} {:<26} {:<16} {:<10} {:>12} {:>12} {:>12}  {}"
_HEAD = _COLUMNS.format("ID", "ACCOUNT", "LIMIT", "MODEL", "PURPOSE", "VALUE", "USED", "RESERVED", "RESETS")


def _line(listed: AccountQuota) -> str:
    quota = listed.quota
    resets = "never" if quota.resets_at is None else f"{quota.resets_at:%Y-%m-%d %H:%M}"
    return _COLUMNS.format(
        quota.id,
        listed.account,
        quota.name,
        quota.model,
        quota.purpose,
        quota.value,
        quota.used,
        quota.reserved,
        resets,
    )


def _value(text: str) -> int:
    value = int(text)
    if not 0 <= value <= LARGEST:
        raise argparse.ArgumentTypeError(f"must be from 0 to {LARGEST}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hunmin_gateway.quotas", description="Limits of accounts.")
    commands = parser.add_subparsers(dest="command", required=True)
    setting = commands.add_parser("set", help="set a limit of an account, or change its value")
    setting.add_argument("account", help="its name")
    setting.add_argument("limit", type=LimitName, choices=[*LimitName], metavar="LIMIT", help=", ".join(LimitName))
    setting.add_argument("value", type=_value, help="how many; 0 refuses everything")
    setting.add_argument("--model", default=ANY, help="a base model, with its soft prompts (default: all together)")
    setting.add_argument("--purpose", default=ANY, choices=[ANY, *Purpose], help="(default: all together)")
    commands.add_parser("list", help="list all limits, with what is taken of them now")
    removing = commands.add_parser("remove", help="remove a limit from now on")
    removing.add_argument("id", help="its id, as `list` shows it")
    return parser


if __name__ == "__main__":
    main()

"""The operator's way to API keys: `python -m hunmin_gateway.keys create NAME | list | revoke ID | new`.

Works on the database of the server's settings, whether or not a server runs. `new` only prints a fresh key, to be set
as HUNMIN_GATEWAY_BOOTSTRAP_KEY.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from hunmin_contracts.errors import HunminError
from hunmin_contracts.ids import ApiKeyId
from hunmin_kit.observe import logs
from hunmin_kit.run.errors import StartError
from hunmin_kit.run.hosting import hosted
from hunmin_kit.run.plan import plan
from hunmin_kit.run.settings import service_prefix

from hunmin_gateway.keys.ring import DEFAULT_ACCOUNT, KeyRing, OwnedKey
from hunmin_gateway.keys.text import new_key
from hunmin_gateway.parts import parts_of_app
from hunmin_gateway.service import SERVICE


def main() -> None:
    """Run the command, and exit with 0, or with 2 and one line on stderr."""
    logs.configure(level="WARNING", form="console")
    try:
        text = asyncio.run(run(sys.argv[1:], os.environ))
    except (StartError, HunminError) as error:
        sys.stderr.write(f"keys: {error.message if isinstance(error, HunminError) else error}\n")
        sys.exit(2)
    sys.stdout.write(f"{text}\n")


async def run(arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    """Do what `arguments` say on the database that `environ` names; return what to print."""
    options = _parser().parse_args(arguments)
    if options.command == "new":
        return new_key()
    # The service is built as for a start, only without a port: the same settings, database and pepper by construction.
    # It calls no other service here, so none has to be found.
    nowhere = {f"{service_prefix(name)}URL": "http://nowhere.invalid" for name in SERVICE.needs}
    async with hosted(plan([SERVICE], nowhere | dict(environ))) as up:
        parts = parts_of_app(up.apps[SERVICE.name])
        async with parts.database.session() as session:
            return await _work(KeyRing(session, pepper=parts.pepper), options)


async def _work(ring: KeyRing, options: argparse.Namespace) -> str:
    match options.command:
        case "create":
            lifetime = None if options.days is None else timedelta(days=options.days)
            key, key_id = await ring.create(options.account, options.name, lifetime=lifetime)
            return f"{key_id} of account {options.account}. The key is shown this once:\n{key}"
        case "revoke":
            await ring.revoke(ApiKeyId(options.id))
            return f"{options.id} is revoked."
        case _:
            return "\n".join([_HEAD, *map(_line, await ring.list())])


_COLUMNS = "{:<28} {:<12} {:<16} {:<10} {:<16} {:<16} {}"
_HEAD = _COLUMNS.format("ID", "ACCOUNT", "NAME", "KEY", "CREATED", "LAST USED", "STATE")


def _line(owned: OwnedKey) -> str:
    key = owned.info
    state = f"revoked {_moment(key.revoked_at)}" if key.revoked_at else "valid"
    if key.expires_at and not key.revoked_at:
        state = f"valid until {_moment(key.expires_at)}"
    used = _moment(key.last_used_at)
    return _COLUMNS.format(key.id, owned.account, key.name, f"{key.prefix}…", _moment(key.created_at), used, state)


def _moment(when: datetime | None) -> str:
    return "never" if when is None else f"{when:%Y-%m-%d %H:%M}"


def _days(text: str) -> float:
    days = float(text)
    if not 0 < days <= 36500:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 36500")
    return days


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hunmin_gateway.keys", description="API keys of Hunmin Studio.")
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="make a key and print it, this once")
    create.add_argument("name", help="what the key is for")
    create.add_argument("--account", default=DEFAULT_ACCOUNT, help="made if it is new (default: %(default)s)")
    create.add_argument("--days", type=_days, help="valid for so many days (default: until revoked)")
    commands.add_parser("list", help="list all keys by their visible prefix")
    revoke = commands.add_parser("revoke", help="refuse a key from now on")
    revoke.add_argument("id", help="its id, as `list` shows it")
    commands.add_parser("new", help="print a fresh key for HUNMIN_GATEWAY_BOOTSTRAP_KEY; nothing is stored")
    return parser


if __name__ == "__main__":
    main()

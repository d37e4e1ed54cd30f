"""`hunmin keys`: API keys of every account. `new` only prints one, to be set as HUNMIN_GATEWAY_BOOTSTRAP_KEY."""

import argparse
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from hunmin_contracts.ids import ApiKeyId
from hunmin_contracts.tenancy import KeyKind, Role, least_role

from hunmin_gateway.commands.command import Desk, acts, moment, one_of
from hunmin_gateway.keys.ring import DEFAULT_ACCOUNT, KeyRing, OwnedKey
from hunmin_gateway.keys.text import new_key

if TYPE_CHECKING:
    from hunmin_gateway.commands.command import Commands

_COLUMNS = "{:<28} {:<12} {:<16} {:<10} {:<9} {:<10} {:<16} {:<16} {}"
_HEAD = _COLUMNS.format("ID", "ACCOUNT", "NAME", "KEY", "KIND", "ROLE", "CREATED", "LAST USED", "STATE")


def add(commands: "Commands") -> None:
    """Add `hunmin keys`."""
    parser = commands.add_parser("keys", help="make, list, rotate and revoke API keys")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key and print it, this once")
    create.add_argument("name", help="what the key is for")
    create.add_argument("--account", default=DEFAULT_ACCOUNT, help="made if it is new (default: %(default)s)")
    create.add_argument("--days", type=_days, help="valid for so many days (default: until revoked)")
    create.add_argument(
        "--role",
        type=one_of(Role),
        default=Role.DEVELOPER,
        metavar="ROLE",
        help=f"whose rights it has: {', '.join(Role)}; an owner's sees the whole account (default: %(default)s)",
    )
    kinds = create.add_mutually_exclusive_group()
    kinds.add_argument("--test", action="store_true", help="a key for tests, not for a service")
    kinds.add_argument("--operator", action="store_true", help="a key above all accounts")
    acts(create, _create)
    acts(actions.add_parser("list", help="list all keys by their visible prefix"), _list)
    revoke = actions.add_parser("revoke", help="refuse a key from now on")
    revoke.add_argument("id", type=ApiKeyId, help="its id, as `list` shows it")
    acts(revoke, _revoke)
    rotate = actions.add_parser("rotate", help="make a key with the same rights, and let the old one end")
    rotate.add_argument("id", type=ApiKeyId, help="its id, as `list` shows it")
    rotate.add_argument("--overlap-s", type=_seconds, default=0, help="for how long the old one is still valid")
    acts(rotate, _rotate)
    new = actions.add_parser("new", help="print a fresh key for HUNMIN_GATEWAY_BOOTSTRAP_KEY; nothing is stored")
    new.set_defaults(act=_print_new)


def _print_new(_: argparse.Namespace) -> int:
    sys.stdout.write(f"{new_key()}\n")
    return 0


async def _create(desk: Desk, options: argparse.Namespace) -> str:
    kind = KeyKind.OPERATOR if options.operator else KeyKind.TEST if options.test else KeyKind.SERVICE
    lifetime = None if options.days is None else timedelta(days=options.days)
    key, key_id = await _ring(desk).create(
        options.account, options.name, lifetime=lifetime, kind=kind, role=options.role, audit=desk.audit
    )
    return f"{key_id} of account {options.account}. The key is shown this once:\n{key}"


async def _list(desk: Desk, _: argparse.Namespace) -> str:
    return "\n".join([_HEAD, *map(_line, await _ring(desk).list())])


async def _revoke(desk: Desk, options: argparse.Namespace) -> str:
    await _ring(desk).revoke(options.id, audit=desk.audit)
    return f"{options.id} is revoked."


async def _rotate(desk: Desk, options: argparse.Namespace) -> str:
    overlap = timedelta(seconds=options.overlap_s)
    made = await _ring(desk).rotate(options.id, overlap=overlap, audit=desk.audit)
    return f"{made.info.id} replaces {options.id}. The key is shown this once:\n{made.key}"


def _ring(desk: Desk) -> KeyRing:
    return KeyRing(desk.session, pepper=desk.pepper)


def _line(owned: OwnedKey) -> str:
    key = owned.info
    state = f"revoked {moment(key.revoked_at)}" if key.revoked_at else "valid"
    if key.expires_at and not key.revoked_at:
        state = f"valid until {moment(key.expires_at)}"
    role = least_role(frozenset(key.scopes))
    created, used = moment(key.created_at), moment(key.last_used_at)
    return _COLUMNS.format(key.id, owned.account, key.name, f"{key.prefix}…", key.kind, role, created, used, state)


def _days(text: str) -> float:
    return _between(float(text), 36500)


def _seconds(text: str) -> int:
    return 0 if text == "0" else int(_between(int(text), 90 * 86_400))


def _between(value: float, most: float) -> float:
    if not 0 < value <= most:
        raise argparse.ArgumentTypeError(f"must be more than 0 and at most {most}")
    return value

"""`hunmin quotas`: the limits of accounts."""

import argparse
from typing import TYPE_CHECKING

from hunmin_contracts.ids import QuotaId
from hunmin_contracts.quotas import ANY, LimitName, Purpose

from hunmin_gateway.commands.command import Desk, acts, moment, one_of
from hunmin_gateway.quotas.limits import LARGEST, AccountQuota, Limits

if TYPE_CHECKING:
    from hunmin_gateway.commands.command import Commands

_COLUMNS = "{:<30} {:<12} {:<26} {:<16} {:<10} {:>12} {:>12} {:>12}  {}"
_HEAD = _COLUMNS.format("ID", "ACCOUNT", "LIMIT", "MODEL", "PURPOSE", "VALUE", "USED", "RESERVED", "RESETS")

_ASKED = "-"  # what is kept is known to the services that keep it, and a command asks the database alone


def add(commands: "Commands") -> None:
    """Add `hunmin quotas`."""
    parser = commands.add_parser("quotas", help="set, list and remove limits of accounts")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    setting = actions.add_parser("set", help="set a limit of an account, or change its value")
    setting.add_argument("account", help="its name")
    setting.add_argument("limit", type=one_of(LimitName), metavar="LIMIT", help=", ".join(LimitName))
    setting.add_argument("value", type=_value, help="how many; 0 refuses everything")
    setting.add_argument("--model", default=ANY, help="a base model, with its soft prompts (default: all together)")
    purposes = [ANY, *(purpose.value for purpose in Purpose)]
    setting.add_argument("--purpose", default=ANY, choices=purposes, help="(default: all together)")
    acts(setting, _set)
    acts(actions.add_parser("list", help="list all limits, with what is taken of them now"), _list)
    removing = actions.add_parser("remove", help="remove a limit from now on")
    removing.add_argument("id", type=QuotaId, help="its id, as `list` shows it")
    acts(removing, _remove)


async def _set(desk: Desk, options: argparse.Namespace) -> str:
    limit_id = await Limits(desk.session).set(
        options.account, options.limit, options.value, model=options.model, purpose=options.purpose, audit=desk.audit
    )
    return f"{limit_id}: {options.limit} of account {options.account} is {options.value} from now on."


async def _list(desk: Desk, _: argparse.Namespace) -> str:
    return "\n".join([_HEAD, *map(_line, await Limits(desk.session).list())])


async def _remove(desk: Desk, options: argparse.Namespace) -> str:
    await Limits(desk.session).remove(options.id, audit=desk.audit)
    return f"{options.id} is removed."


def _line(listed: AccountQuota) -> str:
    quota = listed.quota
    used = _ASKED if quota.name is LimitName.STORAGE_BYTES else quota.used
    taken = (quota.value, used, quota.reserved)
    return _COLUMNS.format(
        quota.id, listed.account, quota.name, quota.model, quota.purpose, *taken, moment(quota.resets_at)
    )


def _value(text: str) -> int:
    if not text.isdecimal() or int(text) > LARGEST:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {LARGEST}")
    return int(text)

"""`hunmin accounts`: all accounts, made, listed, renamed, suspended and resumed."""

import argparse
from typing import TYPE_CHECKING

from hunmin_contracts.tenancy import AccountInfo

from hunmin_gateway.commands.command import Desk, acts, moment
from hunmin_gateway.paging import Part, Position
from hunmin_gateway.tenancy.accounts import Accounts

if TYPE_CHECKING:
    from hunmin_gateway.commands.command import Commands

_COLUMNS = "{:<30} {:<24} {:<24} {:<16} {}"
_HEAD = _COLUMNS.format("ID", "NAME", "ORGANIZATION", "CREATED", "STATE")
_AT_ONCE = 1000


def add(commands: "Commands") -> None:
    """Add `hunmin accounts`."""
    parser = commands.add_parser("accounts", help="make, list, rename, suspend and resume accounts")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    acts(actions.add_parser("list", help="list all accounts, newest first"), _list)
    organization = actions.add_parser("organization", help="say whose people belong to an account")
    organization.add_argument("name", help="its name")
    chosen = organization.add_mutually_exclusive_group(required=True)
    chosen.add_argument("organization", nargs="?", help="an organisation of the identity provider")
    chosen.add_argument("--none", action="store_true", help="of no organisation")
    acts(organization, _organize)
    for name, text, work in (
        ("create", "make an account with its default project", _create),
        ("suspend", "refuse everything to an account from now on", _suspend),
        ("resume", "let a suspended account in again", _resume),
        ("rename", "give an account another name", _rename),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("name", help="its name")
        if name == "rename":
            action.add_argument("new_name", help="its name from now on")
        acts(action, work)


async def _list(desk: Desk, _: argparse.Namespace) -> str:
    lines, after = [_HEAD], None
    while True:
        found = await Accounts(desk.session).page(Part(_AT_ONCE, after))
        lines += map(_line, found[:_AT_ONCE])
        if len(found) <= _AT_ONCE:
            return "\n".join(lines)
        after = Position(found[_AT_ONCE - 1].created_at, found[_AT_ONCE - 1].id)


async def _create(desk: Desk, options: argparse.Namespace) -> str:
    made = await Accounts(desk.session).create(options.name, desk.audit)
    return f"{made.id}: the account {made.name} is made. A key for it: hunmin keys create NAME --account {made.name}"


async def _suspend(desk: Desk, options: argparse.Namespace) -> str:
    accounts = Accounts(desk.session)
    await accounts.suspend(await accounts.one_named(options.name), desk.audit)
    return f"The account {options.name} is suspended."


async def _resume(desk: Desk, options: argparse.Namespace) -> str:
    accounts = Accounts(desk.session)
    await accounts.resume(await accounts.one_named(options.name), desk.audit)
    return f"The account {options.name} is resumed."


async def _rename(desk: Desk, options: argparse.Namespace) -> str:
    accounts = Accounts(desk.session)
    renamed = await accounts.rename(await accounts.one_named(options.name), options.new_name, desk.audit)
    return f"{renamed.id}: the account {options.name} is {renamed.name} from now on."


async def _organize(desk: Desk, options: argparse.Namespace) -> str:
    accounts = Accounts(desk.session)
    account_id = await accounts.one_named(options.name)
    changed = await accounts.set_organization(account_id, options.organization, desk.audit)
    of_which = "no organisation" if changed.organization is None else f"the organisation {changed.organization}"
    return f"The account {changed.name} is that of {of_which} from now on."


def _line(account: AccountInfo) -> str:
    state = "in use" if account.suspended_at is None else f"suspended {moment(account.suspended_at)}"
    return _COLUMNS.format(account.id, account.name, account.organization or "", moment(account.created_at), state)

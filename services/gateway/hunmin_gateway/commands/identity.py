"""`hunmin identity`: makes a Keycloak ready for the studio, and looks after the studio's own users where it has some.

It reads the server's own settings, so both know the same realm, client and database. No server need run.
"""

import argparse
import asyncio
import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hunmin_contracts.audit import Action
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_kit.identity.local import ISSUER, LocalUser, LocalUsers, normal_address
from hunmin_kit.run.errors import StartError
from hunmin_kit.run.settings import load_settings, service_prefix

from hunmin_gateway.commands.command import Desk, acts, ended
from hunmin_gateway.keys.ring import DEFAULT_ACCOUNT
from hunmin_gateway.login.doors import BACKCHANNEL_PATH, CALLBACK_PATH
from hunmin_gateway.login.first_user import link_of
from hunmin_gateway.login.noting import LocalUserInfo
from hunmin_gateway.login.sessions import end_subject
from hunmin_gateway.service import SERVICE, GatewaySettings
from hunmin_gateway.tenancy.accounts import Accounts

if TYPE_CHECKING:
    from hunmin_gateway.commands.command import Commands

PASSWORD_VARIABLE = "KEYCLOAK_ADMIN_PASSWORD"  # noqa: S105  # its name
ROLES = ("owner", "admin", "developer", "viewer", "operator")
_REALMS = "/realms/"


def add(commands: "Commands") -> None:
    """Add `hunmin identity`."""
    parser = commands.add_parser("identity", help="who the studio's people are")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    making = actions.add_parser("init", help="make the realm of HUNMIN_GATEWAY_OIDC_ISSUER in its Keycloak")
    making.add_argument("--admin", default="admin", help="an administrator of the realm master (default: %(default)s)")
    making.add_argument(
        "--admin-password-file", type=Path, help=f"holds the password (default: {PASSWORD_VARIABLE}, or asked for)"
    )
    making.add_argument("--organization", action="append", default=[], metavar="NAME", help="of an account; repeatable")
    making.add_argument("--backchannel-url", help="where Keycloak reaches the studio (default: as browsers do)")
    making.set_defaults(act=_act_init)
    acts(actions.add_parser("users", help="list the studio's own users"), _users)
    invite = actions.add_parser("invite", help="print a link by which somebody becomes a user")
    acts(invite, _invite)
    change = actions.add_parser("change", help="make a user another than they were invited as")
    acts(change, _change)
    for action in (invite, change):
        action.add_argument("email")
        action.add_argument(
            "--account", action="append", metavar="NAME", help=f"repeatable (default: {DEFAULT_ACCOUNT})"
        )
        action.add_argument("--role", action="append", choices=ROLES, help="in these accounts (default: developer)")
    for name, work, about in (
        ("reset", _reset, "print a link by which a user chooses another password"),
        ("disable", _disable, "lock a user out, and end their sessions"),
        ("enable", _enable, "let a user in again"),
    ):
        action = actions.add_parser(name, help=about)
        action.add_argument("email")
        acts(action, work)


def _act_init(options: argparse.Namespace) -> int:
    return ended(init(options, os.environ))


async def init(options: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """Make the realm of the settings in `environ`; return what was done."""
    # Imported here: python-keycloak loads slowly, and nothing else needs it.
    from hunmin_kit.identity.keycloak_realm import Administrator, RealmPlan, bootstrap

    settings = load_settings(GatewaySettings, service_prefix(SERVICE.name), environ)
    server_url, found, realm = (settings.oidc_issuer or "").rpartition(_REALMS)
    if not found or not realm or "/" in realm:
        raise StartError("HUNMIN_GATEWAY_OIDC_ISSUER is to name the realm: set it to https://HOST/realms/NAME.")
    secret = settings.oidc_client_secret
    studio_url = str(settings.public_url or f"http://127.0.0.1:{settings.port}").rstrip("/")
    realm_plan = RealmPlan(
        server_url=server_url,
        realm=realm,
        client_id=settings.oidc_client_id,
        client_secret=None if secret is None else secret.get_secret_value(),
        audience=settings.oidc_audience,
        studio_urls=(studio_url,),
        backchannel_url=(options.backchannel_url or studio_url).rstrip("/"),
        callback=CALLBACK_PATH,
        logout=BACKCHANNEL_PATH,
        organizations=tuple(options.organization),
    )
    administrator = Administrator(user=options.admin, password=_password(environ, options))
    made = await asyncio.to_thread(bootstrap, realm_plan, administrator)
    if secret is None:
        made.lines.append(f"Start the gateway with HUNMIN_GATEWAY_OIDC_CLIENT_SECRET={made.client_secret}")
    return "\n".join(made.lines)


def _password(environ: Mapping[str, str], options: argparse.Namespace) -> str:
    if options.admin_password_file is not None:
        try:
            return str(options.admin_password_file.read_text(encoding="utf-8").strip())
        except OSError as error:
            raise StartError(f"The administrator's password cannot be read: {error}.") from None
    if PASSWORD_VARIABLE in environ:
        return environ[PASSWORD_VARIABLE]
    if not sys.stdin.isatty():
        raise StartError(f"Set {PASSWORD_VARIABLE}, or name --admin-password-file.")
    return getpass.getpass(f"Password of {options.admin} in Keycloak: ")


async def _users(desk: Desk, _: argparse.Namespace) -> str:
    return "\n".join([_HEAD, *map(_line, await _local(desk).list())])


async def _invite(desk: Desk, options: argparse.Namespace) -> str:
    organizations, roles = await _claims(desk, options)
    secret = await _local(desk).invite(options.email, organizations=organizations, roles=roles)
    email = normal_address(options.email)
    invited = LocalUserInfo(
        subject=None, email=email, name=None, organizations=organizations, roles=roles, disabled_at=None
    )
    await desk.audit.note(Action.USER_INVITED, email, account_id=None, after=invited)
    return f"{options.email} registers here, once and within a day:\n{link_of(secret, desk.url)}"


async def _change(desk: Desk, options: argparse.Namespace) -> str:
    before = await _user(desk, options.email)
    organizations, roles = await _claims(desk, options)
    after = await _local(desk).change(options.email, organizations=organizations, roles=roles)
    was, is_now = LocalUserInfo.of(before), LocalUserInfo.of(after)
    await desk.audit.note(Action.USER_CHANGED, after.subject, account_id=None, before=was, after=is_now)
    return f"{after.email} is {', '.join(roles)} in {', '.join(organizations)}, in running sessions within 5 minutes."


async def _claims(desk: Desk, options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return the organisations of the accounts that were named, and the roles in them."""
    accounts = options.account or [DEFAULT_ACCOUNT]
    organizations = [await _organization_of(name, Accounts(desk.session)) for name in accounts]
    return organizations, options.role or ["developer"]


async def _organization_of(name: str, accounts: Accounts) -> str:
    account = await accounts.get(await accounts.one_named(name))
    if account.organization is None:
        raise HunminError(
            ErrorCode.CONFLICT,
            f"The account {name} is of no organisation, and takes nobody by one. Name one: hunmin accounts "
            f"organization {name} ORGANIZATION",
        )
    return account.organization


async def _reset(desk: Desk, options: argparse.Namespace) -> str:
    user = await _user(desk, options.email)
    secret = await _local(desk).invite_to_reset(options.email)
    await desk.audit.note(Action.USER_RESET_OFFERED, user.subject, account_id=None, before=LocalUserInfo.of(user))
    return f"{options.email} chooses another password here, once and within a day:\n{link_of(secret, desk.url)}"


async def _disable(desk: Desk, options: argparse.Namespace) -> str:
    subject = await _set_disabled(desk, options.email, disabled=True)
    ended = await end_subject(desk.session, ISSUER, subject)
    return f"{options.email} is locked out; {ended} of their sessions ended."


async def _enable(desk: Desk, options: argparse.Namespace) -> str:
    await _set_disabled(desk, options.email, disabled=False)
    return f"{options.email} may log in again."


async def _set_disabled(desk: Desk, email: str, *, disabled: bool) -> str:
    before = await _user(desk, email)
    subject = await _local(desk).set_disabled(email, disabled=disabled)
    after = await _user(desk, email)
    if before.disabled_at != after.disabled_at:
        action = Action.USER_DISABLED if disabled else Action.USER_ENABLED
        was, is_now = LocalUserInfo.of(before), LocalUserInfo.of(after)
        await desk.audit.note(action, subject, account_id=None, before=was, after=is_now)
    return subject


async def _user(desk: Desk, email: str) -> LocalUser:
    user = await _local(desk).find(email=normal_address(email))
    if user is None:
        raise HunminError(ErrorCode.NOT_FOUND, f"There is no user {email[:60]}. List them: hunmin identity users")
    return user


def _local(desk: Desk) -> LocalUsers:
    desk.login.check_local()
    return LocalUsers(desk.session)


_COLUMNS = "{:<32} {:<30} {:<20} {:<24} {:<24} {}"
_HEAD = _COLUMNS.format("SUBJECT", "EMAIL", "NAME", "ACCOUNTS", "ROLES", "STATE")


def _line(user: LocalUser) -> str:
    accounts, roles = ", ".join(sorted(user.organizations)), ", ".join(sorted(user.roles))
    state = "active" if user.disabled_at is None else f"disabled {user.disabled_at:%Y-%m-%d %H:%M}"
    return _COLUMNS.format(user.subject, user.email, user.name or "", accounts, roles, state)

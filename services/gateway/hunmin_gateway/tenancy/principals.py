"""From who somebody is to what they may do here: the user, their memberships, and the project they work in."""

from collections.abc import Iterable, Sequence

from hunmin_contracts.audit import ActorKind
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import ProjectId, RequestId, UserId
from hunmin_contracts.tenancy import SCOPES, KeyKind, Role
from hunmin_kit.events import Events
from hunmin_kit.identity import Identity
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.audit.audit import Actor, Audit
from hunmin_gateway.keys.console import console_key
from hunmin_gateway.principal import Principal
from hunmin_gateway.tenancy.accounts import Accounts
from hunmin_gateway.tenancy.members import Membership, accept_invitations, memberships_of
from hunmin_gateway.tenancy.projects import ProjectState, project_state
from hunmin_gateway.tenancy.users import Users

OPERATOR = "operator"  # of the roles that a provider tells


async def principal_of(
    session: AsyncSession,
    events: Events,
    identity: Identity,
    *,
    wanted_project: ProjectId | None,
    request_id: RequestId | None,
) -> Principal:
    """Return whom `identity` may act as in that project; with None in the first that they are a member of.

    They are what the members of accounts and projects say, and in the accounts that their organisations are what
    their roles say. Raises PERMISSION_DENIED for who is a member of nothing, NOT_FOUND for a project that they are no
    member of, ACCOUNT_SUSPENDED, and FORBIDDEN for a user who is disabled or a project that is archived. It takes note
    of the user, so the session is to be committed also where nothing else is written.
    """
    user_id = await Users(session).seen(identity)
    audit = Audit(session, events, Actor(ActorKind.USER, user_id, request_id))
    await accept_invitations(session, user_id, audit)
    memberships = [*await memberships_of(session, user_id), *await _by_claims(session, identity)]
    if not memberships:
        raise HunminError(
            ErrorCode.PERMISSION_DENIED,
            f"You are known here as {identity.email or identity.subject}, and are a member of no account. Ask an admin "
            f"of yours to add you, by that email or as {user_id}.",
            user_id=user_id,
        )
    project = await _project(session, memberships, wanted_project)
    project.check()
    role, is_account_wide = _role_in(project, memberships)
    return Principal(
        account_id=project.account_id,
        project_id=project.id,
        key_id=await console_key(session, project.account_id, project.id, user_id),
        user_id=UserId(user_id),
        role=role,
        kind=KeyKind.CONSOLE,
        scopes=SCOPES[role],
        is_account_wide=is_account_wide,
        is_operator=OPERATOR in identity.roles,
        has_limits=project.has_limits,
    )


async def _by_claims(session: AsyncSession, identity: Identity) -> list[Membership]:
    """Return what the provider says that they are: the highest of their roles, in each of their organisations."""
    roles = [role for role in Role if role in identity.roles]
    if not roles or not identity.organizations:
        return []
    accounts = await Accounts(session).of_organizations(identity.organizations)
    return [Membership(account_id, None, _highest(roles)) for account_id in accounts]


async def _project(session: AsyncSession, memberships: Sequence[Membership], wanted: ProjectId | None) -> ProjectState:
    if wanted is not None:
        project = await project_state(session, wanted)
        if project is None or not _roles_in(project, memberships):
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no project {wanted}. List your projects to find its id.")
        return project
    first = memberships[0]
    chosen = first.project_id or await Accounts(session).default_project(first.account_id)
    project = await project_state(session, chosen)
    if project is None:
        raise HunminError(ErrorCode.NOT_FOUND, f"There is no project {chosen}.")
    return project


def _roles_in(project: ProjectState, memberships: Iterable[Membership]) -> list[Role]:
    return [
        one.role for one in memberships if one.account_id == project.account_id and one.project_id in (None, project.id)
    ]


def _role_in(project: ProjectState, memberships: Sequence[Membership]) -> tuple[Role, bool]:
    """Return the highest role there, and whether it is one in the whole account.

    Who is more in the project than in the account acts in the project alone: else an admin of one would be an admin of
    all.
    """
    role = _highest(_roles_in(project, memberships))
    in_account = _roles_in(project, [one for one in memberships if one.project_id is None])
    return role, role in in_account


def _highest(roles: Iterable[Role]) -> Role:
    return max(roles, key=lambda role: len(SCOPES[role]))

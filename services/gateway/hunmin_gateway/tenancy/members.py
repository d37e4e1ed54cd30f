"""What users are in accounts and projects. The only statements on `members`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hunmin_contracts.audit import Action
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, MemberId, ProjectId, UserId, new_member_id
from hunmin_contracts.tenancy import SCOPES, MemberInfo, Role, Scope
from sqlalchemy import Select, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from hunmin_gateway.audit.audit import Audit
from hunmin_gateway.paging import Part, paged
from hunmin_gateway.principal import Principal
from hunmin_gateway.tables import Member, User
from hunmin_gateway.tenancy.reach import Reach


@dataclass(frozen=True)
class Membership:
    """A role in a project, or with None in the whole account."""

    account_id: AccountId
    project_id: ProjectId | None
    role: Role


async def memberships_of(session: AsyncSession, user_id: UserId) -> list[Membership]:
    """Return what a user is anywhere, the oldest first."""
    found = await session.execute(
        select(Member.account_id, Member.project_id, Member.role)
        .where(Member.user_id == user_id)
        .order_by(Member.created_at, Member.id)
    )
    return [
        Membership(AccountId(account_id), None if project_id is None else ProjectId(project_id), Role(role))
        for account_id, project_id, role in found
    ]


async def accept_invitations(session: AsyncSession, user_id: UserId, audit: Audit) -> None:
    """Make a user a member of what their email was invited to. Where they are one already, nothing changes."""
    email = select(User.email).where(User.id == user_id).scalar_subquery()
    other = aliased(Member)
    is_member_there = (
        select(other.id)
        .where(
            other.user_id == user_id,
            other.account_id == Member.account_id,
            func.coalesce(other.project_id, "") == func.coalesce(Member.project_id, ""),
        )
        .exists()
    )
    await session.execute(delete(Member).where(Member.email == email, is_member_there))
    joined = update(Member).where(Member.email == email).values(user_id=user_id, email=None)
    for member in (await session.execute(joined.returning(Member.id, Member.account_id))).all():
        account_id = AccountId(member.account_id)
        after = await Members(session, Reach(account_id, None)).get(member.id)
        await audit.note(
            Action.MEMBER_JOINED,
            member.id,
            account_id=account_id,
            project_id=after.project_id,
            before=after.model_copy(update={"user_id": None, "name": None}),
            after=after,
        )


@dataclass(frozen=True)
class Invited:
    """A user, or else whoever comes with an email, which is in lower case."""

    user_id: str | None
    email: str | None


class Members:
    """The members within reach. Works in the session it is given; whoever opened that commits.

    Who is an owner or an admin is for owners to say: `by` may touch a member only if it has all the rights of its role.
    """

    def __init__(self, session: AsyncSession, reach: Reach) -> None:
        self._session = session
        self._reach = reach

    async def page(self, part: Part, *, q: str | None = None, role: Role | None = None) -> list[MemberInfo]:
        """Return members whose name or email holds `q`, newest first; one more than the part has."""
        statement = self._select()
        if q:
            who = (User.name, User.email, Member.email)
            statement = statement.where(or_(*(column.icontains(q, autoescape=True) for column in who)))
        if role is not None:
            statement = statement.where(Member.role == role)
        by = (Member.created_at.expression, Member.id.expression)
        return [_info(row) for row in await self._session.execute(paged(statement, part, by=by))]

    async def get(self, member_id: str) -> MemberInfo:
        """Return a member; NOT_FOUND if there is none of that id within reach."""
        found = await self._session.execute(self._select().where(Member.id == member_id))
        row = found.one_or_none()
        if row is None:
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no member {member_id[:60]}. List the members.")
        return _info(row)

    async def add(self, who: Invited, role: Role, by: Principal, audit: Audit) -> MemberInfo:
        """Make them a member of the reach; CONFLICT if they are one, NOT_FOUND if there is no such user."""
        _require_rights(by, role)
        if who.user_id is not None and await self._session.get(User, who.user_id) is None:
            raise HunminError(ErrorCode.NOT_FOUND, "There is no such user. They must have logged in once.")
        member_id = new_member_id()
        making = insert(Member).values(
            id=member_id,
            account_id=self._reach.account_id,
            project_id=self._reach.project_id,
            user_id=who.user_id,
            email=who.email,
            role=role,
        )
        if await self._session.scalar(making.on_conflict_do_nothing().returning(Member.id)) is None:
            raise HunminError(ErrorCode.CONFLICT, "They are a member there already. Change their role instead.")
        info = await self.get(member_id)
        await self._note(audit, Action.MEMBER_ADDED, None, info)
        return info

    async def change(self, member_id: str, role: Role, by: Principal, audit: Audit) -> MemberInfo:
        """Give a member another role; CONFLICT for the account's last owner."""
        owners = await self._lock_owners()
        before = await self.get(member_id)
        _require_rights(by, before.role, role)
        if role is not Role.OWNER:
            _keep_an_owner(owners, before)
        await self._session.execute(
            update(Member).where(self._reach.of(Member), Member.id == member_id).values(role=role)
        )
        after = await self.get(member_id)
        await self._note(audit, Action.MEMBER_CHANGED, before, after)
        return after

    async def remove(self, member_id: str, by: Principal, audit: Audit) -> None:
        """Remove a member; CONFLICT for the account's last owner. The keys that they made stay."""
        owners = await self._lock_owners()
        before = await self.get(member_id)
        _require_rights(by, before.role)
        _keep_an_owner(owners, before)
        await self._session.execute(delete(Member).where(self._reach.of(Member), Member.id == member_id))
        await self._note(audit, Action.MEMBER_REMOVED, before, None)

    def _select(self) -> Select[Any]:
        return (
            select(Member, User.email.label("user_email"), User.name.label("user_name"))
            .outerjoin(User, User.id == Member.user_id)
            .where(self._reach.of(Member))
            .execution_options(populate_existing=True)
        )

    async def _lock_owners(self) -> Sequence[str]:
        """Return the owners of the account, who stay that until this transaction is over."""
        owners = select(Member.id).where(
            Member.account_id == self._reach.account_id,
            Member.project_id.is_(None),
            Member.user_id.is_not(None),
            Member.role == Role.OWNER,
        )
        return (await self._session.scalars(owners.order_by(Member.id).with_for_update())).all()

    async def _note(self, audit: Audit, action: Action, before: MemberInfo | None, after: MemberInfo | None) -> None:
        subject = after or before
        if subject is not None:
            where = {"account_id": self._reach.account_id, "project_id": subject.project_id}
            await audit.note(action, subject.id, before=before, after=after, **where)  # type: ignore[arg-type]


def _info(row: Any) -> MemberInfo:
    member: Member = row.Member
    return MemberInfo(
        id=MemberId(member.id),
        project_id=None if member.project_id is None else ProjectId(member.project_id),
        user_id=None if member.user_id is None else UserId(member.user_id),
        email=member.email or row.user_email,
        name=row.user_name,
        role=Role(member.role),
        created_at=member.created_at,
    )


def _require_rights(by: Principal, *roles: Role) -> None:
    # A developer's rights come with the right to manage; an owner's and an admin's are for owners to give and take.
    if any(Scope.MANAGE in SCOPES[role] for role in roles):
        by.require(Scope.ACCOUNT)


def _keep_an_owner(owners: Sequence[str], member: MemberInfo) -> None:
    if list(owners) == [member.id]:
        raise HunminError(
            ErrorCode.CONFLICT, "This is the last owner of the account. Make somebody else an owner before."
        )

"""What users are in accounts and projects. The only statements on `members`."""

from dataclasses import dataclass

from hunmin_contracts.ids import AccountId, ProjectId, UserId
from hunmin_contracts.tenancy import Role
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from hunmin_gateway.tables import Member, User


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


async def accept_invitations(session: AsyncSession, user_id: UserId) -> None:
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
    await session.execute(update(Member).where(Member.email == email).values(user_id=user_id, email=None))

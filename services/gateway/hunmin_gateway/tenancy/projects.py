"""The projects of an account. The statements on `projects`, but for the one that makes the default one."""

from dataclasses import dataclass
from datetime import datetime

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, ProjectId
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.tables import Account, Project, QuotaLimit


@dataclass(frozen=True)
class ProjectState:
    """Whether one may work in a project, and whether its account has limits."""

    id: ProjectId
    account_id: AccountId
    suspended_at: datetime | None
    archived_at: datetime | None
    has_limits: bool

    def check(self) -> None:
        """Raise ACCOUNT_SUSPENDED, or FORBIDDEN where the project is archived."""
        check_place(self.suspended_at, self.archived_at)


def check_place(suspended_at: datetime | None, archived_at: datetime | None) -> None:
    """Raise ACCOUNT_SUSPENDED, or FORBIDDEN where the project is archived."""
    if suspended_at is not None:
        raise HunminError(
            ErrorCode.ACCOUNT_SUSPENDED, "This account is suspended. Ask the operator of this server to resume it."
        )
    if archived_at is not None:
        raise HunminError(
            ErrorCode.FORBIDDEN, "This project is archived. Use another project of your account, or a key of one."
        )


async def project_state(session: AsyncSession, project_id: ProjectId) -> ProjectState | None:
    """Return how a project stands, whoever asks; None if there is none of that id."""
    has_limits = select(QuotaLimit.id).where(QuotaLimit.account_id == Project.account_id).exists()
    found = await session.execute(
        select(Project.account_id, Account.suspended_at, Project.archived_at, has_limits)
        .join(Account, Account.id == Project.account_id)
        .where(Project.id == project_id)
    )
    row = found.one_or_none()
    if row is None:
        return None
    account_id, suspended_at, archived_at, is_limited = row
    return ProjectState(project_id, AccountId(account_id), suspended_at, archived_at, is_limited)

"""The projects of an account. The statements on `projects`, but for the one that makes the default one."""

from dataclasses import dataclass
from datetime import datetime

from hunmin_contracts.audit import Action
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, ProjectId, new_project_id
from hunmin_contracts.tenancy import ProjectInfo
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.audit.audit import Audit
from hunmin_gateway.paging import Part, paged
from hunmin_gateway.tables import Account, Project, QuotaLimit
from hunmin_gateway.tenancy.reach import Reach


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


class Projects:
    """The projects within reach. Works in the session it is given; whoever opened that commits."""

    def __init__(self, session: AsyncSession, reach: Reach) -> None:
        self._session = session
        self._reach = reach

    async def page(self, part: Part, *, q: str | None = None, archived: bool | None = None) -> list[ProjectInfo]:
        """Return projects whose name holds `q`, newest first; one more than the part has."""
        statement = select(Project).where(self._reach.of(Project))
        if q:
            statement = statement.where(Project.name.icontains(q, autoescape=True))
        if archived is not None:
            statement = statement.where(Project.archived_at.is_not(None) == archived)
        rows = await self._session.scalars(
            paged(statement, part, by=(Project.created_at.expression, Project.id.expression))
        )
        return [ProjectInfo.model_validate(row, from_attributes=True) for row in rows]

    async def get(self, project_id: str) -> ProjectInfo:
        """Return a project; NOT_FOUND if there is none of that id within reach."""
        row = await self._session.scalar(
            select(Project)
            .where(self._reach.of(Project), Project.id == project_id)
            .execution_options(populate_existing=True)
        )
        if row is None:
            raise HunminError(
                ErrorCode.NOT_FOUND, f"There is no project {project_id[:60]}. List the projects to find its id."
            )
        return ProjectInfo.model_validate(row, from_attributes=True)

    async def create(self, name: str, audit: Audit) -> ProjectInfo:
        """Make a project; CONFLICT if the account has one of that name."""
        project_id = new_project_id()
        making = insert(Project).values(id=project_id, account_id=self._reach.account_id, name=name, is_default=False)
        made = await self._session.scalar(
            making.on_conflict_do_nothing(index_elements=[Project.account_id, Project.name]).returning(Project.id)
        )
        if made is None:
            raise _taken(name)
        info = await self.get(project_id)
        await _note(audit, Action.PROJECT_CREATED, None, info)
        return info

    async def rename(self, project_id: str, name: str, audit: Audit) -> ProjectInfo:
        """Give a project another name; CONFLICT if the account has one of that name."""
        before = await self.get(project_id)
        try:
            async with self._session.begin_nested():
                return await self._change(before, Action.PROJECT_RENAMED, audit, name=name)
        except IntegrityError:
            raise _taken(name) from None

    async def archive(self, project_id: str, audit: Audit) -> ProjectInfo:
        """Refuse the keys of a project from now on; CONFLICT for the default one. Twice is no error."""
        before = await self.get(project_id)
        if before.is_default:
            raise HunminError(ErrorCode.CONFLICT, "The default project of an account cannot be archived.")
        if before.archived_at is not None:
            return before
        return await self._change(before, Action.PROJECT_ARCHIVED, audit, archived_at=func.now())

    async def restore(self, project_id: str, audit: Audit) -> ProjectInfo:
        """Take a project out of the archive. Twice is no error."""
        before = await self.get(project_id)
        if before.archived_at is None:
            return before
        return await self._change(before, Action.PROJECT_RESTORED, audit, archived_at=None)

    async def _change(self, before: ProjectInfo, action: Action, audit: Audit, **values: object) -> ProjectInfo:
        await self._session.execute(
            update(Project).where(self._reach.of(Project), Project.id == before.id).values(**values)
        )
        after = await self.get(before.id)
        await _note(audit, action, before, after)
        return after


async def narrowed(session: AsyncSession, reach: Reach, project_id: str | None) -> Reach:
    """Return the part of `reach` that is in one project, all of it with None; NOT_FOUND for one beyond it."""
    if project_id is None:
        return reach
    return Reach(reach.account_id, (await Projects(session, reach).get(project_id)).id)


async def _note(audit: Audit, action: Action, before: ProjectInfo | None, after: ProjectInfo) -> None:
    await audit.note(action, after.id, account_id=after.account_id, project_id=after.id, before=before, after=after)


def _taken(name: str) -> HunminError:
    return HunminError(
        ErrorCode.CONFLICT, f"Your account has a project {name!r} already. Choose another name.", param="name"
    )

"""Accounts: made, found, renamed, suspended. The only statements on `accounts` that change them."""

from collections.abc import Iterable
from dataclasses import dataclass

from hunmin_contracts.audit import Action
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, ProjectId, new_account_id, new_project_id
from hunmin_contracts.tenancy import AccountInfo
from sqlalchemy import case, func, literal, null, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.audit.audit import Audit
from hunmin_gateway.paging import Part, paged
from hunmin_gateway.tables import Account, Project

DEFAULT_PROJECT = "default"


@dataclass(frozen=True)
class Place:
    """A project of an account."""

    account_id: AccountId
    project_id: ProjectId


class Accounts:
    """Works in the session it is given; whoever opened that commits."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def ensure(self, name: str, *, audit: Audit | None = None) -> Place:
        """Return the default project of the account of that name; both are made if they are new."""
        made = await self._make(name, audit)
        account_id = made.id if made is not None else await self.one_named(name)
        return Place(account_id, await self.default_project(account_id))

    async def create(self, name: str, audit: Audit) -> AccountInfo:
        """Make an account of a new name, with its default project; CONFLICT if there is one of that name."""
        made = await self._make(name, audit)
        if made is None:
            raise _taken(name)
        return made

    async def of_organizations(self, organizations: Iterable[str]) -> list[AccountId]:
        """Return the accounts that these organisations of the identity provider are, the oldest first."""
        found = select(Account.id).where(Account.organization.in_(list(organizations)))
        ordered = found.order_by(Account.created_at, Account.id)
        return [AccountId(account_id) for account_id in await self._session.scalars(ordered)]

    async def one_named(self, name: str) -> AccountId:
        """Return the account of that name; NOT_FOUND if there is none."""
        found = await self._session.scalar(select(Account.id).where(Account.name == name))
        if found is not None:
            return AccountId(found)
        raise HunminError(
            ErrorCode.NOT_FOUND, f"There is no account {name!r}. Make it by `hunmin accounts create NAME`."
        )

    async def default_project(self, account_id: AccountId) -> ProjectId:
        """Return the default project of an account, which is made if it is new."""
        making = insert(Project).values(
            id=new_project_id(), account_id=account_id, name=DEFAULT_PROJECT, is_default=True
        )
        await self._session.execute(making.on_conflict_do_nothing())
        found = await self._session.execute(
            select(Project.id).where(Project.account_id == account_id, Project.is_default)
        )
        return ProjectId(found.scalar_one())

    async def page(self, part: Part, *, q: str | None = None) -> list[AccountInfo]:
        """Return accounts whose name holds `q`, newest first; one more than the part has."""
        statement = select(Account)
        if q:
            statement = statement.where(Account.name.icontains(q, autoescape=True))
        rows = await self._session.scalars(
            paged(statement, part, by=(Account.created_at.expression, Account.id.expression))
        )
        return [AccountInfo.model_validate(row, from_attributes=True) for row in rows]

    async def get(self, account_id: AccountId) -> AccountInfo:
        """Return an account; NOT_FOUND if there is none of that id."""
        row = await self._session.scalar(
            select(Account).where(Account.id == account_id).execution_options(populate_existing=True)
        )
        if row is None:
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no account {account_id[:60]}. List the accounts.")
        return AccountInfo.model_validate(row, from_attributes=True)

    async def rename(self, account_id: AccountId, name: str, audit: Audit) -> AccountInfo:
        """Give an account another name; CONFLICT if there is one of that name. Its organisation stays."""
        before = await self.get(account_id)
        try:
            async with self._session.begin_nested():
                return await self._change(before, Action.ACCOUNT_RENAMED, audit, name=name)
        except IntegrityError:
            raise _taken(name) from None

    async def set_organization(self, account_id: AccountId, organization: str | None, audit: Audit) -> AccountInfo:
        """Let the people of another organisation belong to it, or of none; CONFLICT if theirs is another account."""
        before = await self.get(account_id)
        if before.organization == organization:
            return before
        try:
            async with self._session.begin_nested():
                return await self._change(before, Action.ACCOUNT_ORGANIZATION_CHANGED, audit, organization=organization)
        except IntegrityError:
            raise HunminError(
                ErrorCode.CONFLICT,
                f"The organisation {organization!r} is another account. Give that one another before.",
                param="organization",
            ) from None

    async def suspend(self, account_id: AccountId, audit: Audit) -> AccountInfo:
        """Refuse everything to an account from now on. Twice is no error."""
        before = await self.get(account_id)
        if before.suspended_at is not None:
            return before
        return await self._change(before, Action.ACCOUNT_SUSPENDED, audit, suspended_at=func.now())

    async def resume(self, account_id: AccountId, audit: Audit) -> AccountInfo:
        """Let a suspended account in again. Twice is no error."""
        before = await self.get(account_id)
        if before.suspended_at is None:
            return before
        return await self._change(before, Action.ACCOUNT_RESUMED, audit, suspended_at=None)

    async def _make(self, name: str, audit: Audit | None) -> AccountInfo | None:
        """Make an account and its default project, if there is none of that name.

        It is the organisation of its name, unless another account is that one, which had this name before.
        """
        account_id = new_account_id()
        is_taken = select(Account.id).where(Account.organization == name).exists()
        organization = case((is_taken, null()), else_=literal(name))
        making = insert(Account).values(id=account_id, name=name, organization=organization)
        if await self._session.scalar(making.on_conflict_do_nothing().returning(Account.id)) is None:
            return None
        await self.default_project(account_id)
        info = await self.get(account_id)
        if audit is not None:
            await audit.note(Action.ACCOUNT_CREATED, account_id, account_id=account_id, after=info)
        return info

    async def _change(self, before: AccountInfo, action: Action, audit: Audit, **values: object) -> AccountInfo:
        await self._session.execute(update(Account).where(Account.id == before.id).values(**values))
        after = await self.get(before.id)
        await audit.note(action, before.id, account_id=before.id, before=before, after=after)
        return after


def _taken(name: str) -> HunminError:
    return HunminError(ErrorCode.CONFLICT, f"There is an account {name!r} already. Choose another name.", param="name")

"""Accounts, as an operator makes and finds them. The statements on `accounts` that change them."""

from collections.abc import Iterable
from dataclasses import dataclass

from hunmin_contracts.ids import AccountId, ProjectId, new_account_id, new_project_id
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

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

    async def ensure(self, name: str) -> Place:
        """Return the default project of the account of that name; both are made if they are new."""
        making = insert(Account).values(id=new_account_id(), name=name)
        await self._session.execute(making.on_conflict_do_nothing(index_elements=[Account.name]))
        account_id = AccountId(await self._session.scalar(select(Account.id).where(Account.name == name)) or "")
        return Place(account_id, await self.default_project(account_id))

    async def named(self, names: Iterable[str]) -> list[AccountId]:
        """Return the accounts that have one of these names, the oldest first."""
        found = select(Account.id).where(Account.name.in_(list(names))).order_by(Account.created_at, Account.id)
        return [AccountId(account_id) for account_id in await self._session.scalars(found)]

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

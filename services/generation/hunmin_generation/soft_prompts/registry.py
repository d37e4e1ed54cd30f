"""Which soft prompts there are: the only statements on their tables. It knows neither files nor tensors."""

from enum import StrEnum
from typing import Any

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.events import SOFT_PROMPT, SoftPromptChanged
from hunmin_contracts.ids import AccountId, JobId, SoftPromptId
from hunmin_contracts.soft_prompts import ListRequest, SoftPromptInfo, SoftPromptPage
from hunmin_kit.data import Database
from hunmin_kit.data.versions import Versions
from hunmin_kit.events import Events
from sqlalchemy import Select, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_generation.tables import SoftPrompt, SoftPromptNames

_VERSIONS = Versions(SoftPrompt, SoftPromptNames, noun="soft prompt", order=[SoftPrompt.is_promoted.desc()])


class Change(StrEnum):
    """What happens to a version, as other services are told."""

    IMPORTED = "imported"
    PROMOTED = "promoted"
    DELETED = "deleted"


class Registry:
    """Versions by account and name. Every method is one transaction, which tells other services what it changes."""

    def __init__(self, database: Database, events: Events) -> None:
        self._database = database
        self._events = events

    async def add(self, account_id: AccountId, **values: Any) -> SoftPromptInfo:
        """Add the next version of a name, or return the one that its job has left already."""
        async with self._database.session() as session:
            row = await _VERSIONS.add(session, account_id, values, unless=["account_id", "job_id"])
            if row is None:
                row = (await session.scalars(_of_job(account_id, values["job_id"]))).one()
            else:
                await self._tell(session, row, Change.IMPORTED)
            return _info(row)

    async def find_of_job(self, account_id: AccountId, job_id: JobId) -> SoftPromptInfo | None:
        """Return the version that a job has left, if there is one."""
        async with self._database.session() as session:
            row = await session.scalar(_of_job(account_id, job_id))
        return None if row is None else _info(row)

    async def find(self, account_id: AccountId, reference: str) -> SoftPromptInfo:
        """Return what `name@version` names, or `name`: its promoted version, or the newest where none is.

        `not_found` if the account has none.
        """
        async with self._database.session() as session:
            return _info(await _VERSIONS.find(session, account_id, reference))

    async def page(self, request: ListRequest) -> SoftPromptPage:
        """List by name, newest version first."""
        async with self._database.session() as session:
            rows, has_more = await _VERSIONS.page(session, request)
        return SoftPromptPage(data=[_info(row) for row in rows], has_more=has_more)

    async def promote(self, account_id: AccountId, reference: str) -> SoftPromptInfo:
        """Make a name mean this version, and no other; `reference` is `name@version`."""
        name, version = _VERSIONS.parse(reference)
        if version is None:
            raise HunminError(
                ErrorCode.INVALID_PARAMETER,
                f"{reference!r} does not say which version is to be promoted. Name it, as {reference}@1.",
                param="reference",
            )
        named = update(SoftPrompt).where(SoftPrompt.account_id == account_id, SoftPrompt.name == name)
        async with self._database.session() as session:
            # One after the other: the second would not see, and so not demote, what the first promotes.
            await _VERSIONS.lock_name(session, account_id, name)
            await session.execute(named.where(SoftPrompt.is_promoted).values(is_promoted=False))
            promoted = named.where(SoftPrompt.version == version).values(is_promoted=True)
            row = await session.scalar(promoted.returning(SoftPrompt))
            if row is None:
                raise _VERSIONS.unknown(reference)
            await self._tell(session, row, Change.PROMOTED)
            return _info(row)

    async def remove(self, account_id: AccountId, reference: str, *, force: bool = False) -> SoftPromptInfo:
        """Remove what `find` finds, and return it. A promoted version is a `conflict`, unless by `force`."""
        async with self._database.session() as session:
            row = await _VERSIONS.find(session, account_id, reference, lock=True)
            if row.is_promoted and not force:
                raise HunminError(
                    ErrorCode.CONFLICT,
                    f"{row.name}@{row.version} is promoted: it serves whoever names {row.name!r}. Promote another "
                    "version first, or delete this one by force: then the name means the newest version that is left.",
                    param="reference",
                )
            await session.delete(row)
            await self._tell(session, row, Change.DELETED)
            return _info(row)

    async def stored_bytes(self, account_id: AccountId) -> int:
        """Return the bytes of all files of an account."""
        total = select(func.coalesce(func.sum(SoftPrompt.size_bytes), 0)).where(SoftPrompt.account_id == account_id)
        async with self._database.session() as session:
            return int(await session.scalar(total) or 0)

    async def _tell(self, session: AsyncSession, row: SoftPrompt, change: Change) -> None:
        told = SoftPromptChanged(
            soft_prompt_id=SoftPromptId(row.id),
            account_id=AccountId(row.account_id),
            name=row.name,
            version=row.version,
            model=row.model,
            change=change,
        )
        await self._events.tell(session, SOFT_PROMPT, told, key=f"{row.account_id}/{row.name}")


def _of_job(account_id: AccountId, job_id: JobId) -> Select[tuple[SoftPrompt]]:
    return select(SoftPrompt).where(SoftPrompt.account_id == account_id, SoftPrompt.job_id == job_id)


def _info(row: SoftPrompt) -> SoftPromptInfo:
    values = {field: getattr(row, field) for field in SoftPromptInfo.model_fields}
    return SoftPromptInfo.model_validate(values)

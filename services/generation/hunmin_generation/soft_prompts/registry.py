"""Which soft prompts there are: the only statements on their tables. It knows neither files nor tensors."""

import re
from typing import Any

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, JobId
from hunmin_contracts.soft_prompts import ListRequest, SoftPromptInfo, SoftPromptPage
from hunmin_kit.data import Database
from sqlalchemy import Select, and_, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from hunmin_generation.tables import SoftPrompt, SoftPromptNames

_REFERENCE = re.compile(r"([a-z][a-z0-9_-]{0,62})(?:@([1-9][0-9]{0,8}))?")


class Registry:
    """Versions by account and name. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, account_id: AccountId, **values: Any) -> SoftPromptInfo:
        """Add the next version of a name, or return the one that its job has left already.

        Several may at once: each gets its own number, none is left out, and none of a job comes twice.
        """
        name, job_id = values["name"], values["job_id"]
        held = insert(SoftPromptNames).values(account_id=account_id, name=name, last_version=0)
        # The row's lock is held until the commit, so that whoever comes next waits for it.
        held = held.on_conflict_do_update(
            index_elements=["account_id", "name"], set_={"last_version": SoftPromptNames.last_version}
        )
        async with self._database.session() as session:
            version = 1 + (await session.scalar(held.returning(SoftPromptNames.last_version)) or 0)
            added = insert(SoftPrompt).values(account_id=account_id, version=version, **values)
            added = added.on_conflict_do_nothing(index_elements=["account_id", "job_id"])
            row = await session.scalar(added.returning(SoftPrompt))
            if row is None:
                row = (await session.scalars(_of_job(account_id, job_id))).one()
            else:
                names = await session.get_one(SoftPromptNames, (account_id, name))
                names.last_version = version
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
            row = await session.scalar(_meant(account_id, reference))
        if row is None:
            raise _unknown(reference)
        return _info(row)

    async def page(self, request: ListRequest) -> SoftPromptPage:
        """List by name, newest version first."""
        owned = SoftPrompt.account_id == request.account_id
        statement = select(SoftPrompt).where(owned).order_by(SoftPrompt.name, SoftPrompt.version.desc())
        if request.name is not None:
            statement = statement.where(SoftPrompt.name == request.name)
        async with self._database.session() as session:
            if request.after is not None:
                last = await session.scalar(select(SoftPrompt).where(owned, SoftPrompt.id == request.after))
                if last is None:
                    raise HunminError(
                        ErrorCode.INVALID_PARAMETER,
                        "The soft prompt that the page before ended with is gone. Begin again with the first page.",
                        param="cursor",
                    )
                older = and_(SoftPrompt.name == last.name, SoftPrompt.version < last.version)
                statement = statement.where(or_(SoftPrompt.name > last.name, older))
            rows = (await session.scalars(statement.limit(request.limit + 1))).all()
        return SoftPromptPage(data=[_info(row) for row in rows[: request.limit]], has_more=len(rows) > request.limit)

    async def promote(self, account_id: AccountId, reference: str) -> SoftPromptInfo:
        """Make a name mean this version, and no other; `reference` is `name@version`."""
        name, version = _parsed(reference)
        if version is None:
            raise HunminError(
                ErrorCode.INVALID_PARAMETER,
                f"{reference!r} does not say which version is to be promoted. Name it, as {reference}@1.",
                param="reference",
            )
        named = and_(SoftPrompt.account_id == account_id, SoftPrompt.name == name)
        held = and_(SoftPromptNames.account_id == account_id, SoftPromptNames.name == name)
        demoted = update(SoftPrompt).where(named, SoftPrompt.is_promoted).values(is_promoted=False)
        promoted = update(SoftPrompt).where(named, SoftPrompt.version == version).values(is_promoted=True)
        async with self._database.session() as session:
            # One after the other: the second would not see, and so not demote, what the first promotes.
            await session.execute(select(SoftPromptNames).where(held).with_for_update())
            await session.execute(demoted)
            row = await session.scalar(promoted.returning(SoftPrompt))
            if row is None:
                raise _unknown(reference)
            return _info(row)

    async def remove(self, account_id: AccountId, reference: str, *, force: bool = False) -> SoftPromptInfo:
        """Remove what `find` finds, and return it. A promoted version is a `conflict`, unless by `force`."""
        async with self._database.session() as session:
            row = await session.scalar(_meant(account_id, reference).with_for_update())
            if row is None:
                raise _unknown(reference)
            if row.is_promoted and not force:
                raise HunminError(
                    ErrorCode.CONFLICT,
                    f"{row.name}@{row.version} is promoted: it serves whoever names {row.name!r}. Promote another "
                    "version first, or delete this one by force: then the name means the newest version that is left.",
                    param="reference",
                )
            await session.delete(row)
        return _info(row)


def _meant(account_id: AccountId, reference: str) -> Select[tuple[SoftPrompt]]:
    name, version = _parsed(reference)
    named = select(SoftPrompt).where(SoftPrompt.account_id == account_id, SoftPrompt.name == name)
    if version is not None:
        return named.where(SoftPrompt.version == version)
    return named.order_by(SoftPrompt.is_promoted.desc(), SoftPrompt.version.desc()).limit(1)


def _of_job(account_id: AccountId, job_id: JobId | None) -> Select[tuple[SoftPrompt]]:
    return select(SoftPrompt).where(SoftPrompt.account_id == account_id, SoftPrompt.job_id == job_id)


def _parsed(reference: str) -> tuple[str, int | None]:
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise _unknown(reference)
    name, version = found.groups()
    return name, None if version is None else int(version)


def _unknown(reference: str) -> HunminError:
    return HunminError(
        ErrorCode.NOT_FOUND,
        f"There is no soft prompt {reference[:80]!r}. Name one of the account's own, as name or name@version.",
    )


def _info(row: SoftPrompt) -> SoftPromptInfo:
    values = {field: getattr(row, field) for field in SoftPromptInfo.model_fields}
    return SoftPromptInfo.model_validate(values)

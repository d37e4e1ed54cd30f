"""Which soft prompts there are: the only statements on their tables. It knows neither files nor tensors."""

import re
from typing import Any

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId
from hunmin_contracts.soft_prompts import ListRequest, SoftPromptInfo, SoftPromptPage
from hunmin_kit.data import Database
from sqlalchemy import ColumnElement, and_, delete, or_, select
from sqlalchemy.dialects.postgresql import insert

from hunmin_generation.tables import SoftPrompt, SoftPromptNames

_REFERENCE = re.compile(r"([a-z][a-z0-9_-]{0,62})(?:@([1-9][0-9]{0,8}))?")


class Registry:
    """Versions by account and name. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, account_id: AccountId, **values: Any) -> SoftPromptInfo:
        """Add the next version of a name. Several may at once: each gets its own number, none is left out."""
        name = values["name"]
        counted = insert(SoftPromptNames).values(account_id=account_id, name=name, last_version=1)
        # The row's lock is held until the commit, so that whoever comes next waits for it.
        counted = counted.on_conflict_do_update(
            index_elements=["account_id", "name"], set_={"last_version": SoftPromptNames.last_version + 1}
        )
        async with self._database.session() as session:
            version = await session.scalar(counted.returning(SoftPromptNames.last_version))
            row = SoftPrompt(account_id=account_id, version=version, **values)
            session.add(row)
            await session.flush()
            return _info(row)

    async def find(self, account_id: AccountId, reference: str) -> SoftPromptInfo:
        """Return what `name@version` names, or `name`'s newest version; `not_found` if the account has none."""
        wanted = _wanted(account_id, reference)
        async with self._database.session() as session:
            row = await session.scalar(select(SoftPrompt).where(wanted).order_by(SoftPrompt.version.desc()).limit(1))
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

    async def remove(self, account_id: AccountId, reference: str) -> SoftPromptInfo:
        """Remove what `find` finds, and return it."""
        wanted = _wanted(account_id, reference)
        newest = select(SoftPrompt.id).where(wanted).order_by(SoftPrompt.version.desc()).limit(1)
        async with self._database.session() as session:
            removed = delete(SoftPrompt).where(SoftPrompt.id.in_(newest)).returning(SoftPrompt)
            row = await session.scalar(removed)
        if row is None:
            raise _unknown(reference)
        return _info(row)


def _wanted(account_id: AccountId, reference: str) -> ColumnElement[bool]:
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise _unknown(reference)
    name, version = found.groups()
    named = and_(SoftPrompt.account_id == account_id, SoftPrompt.name == name)
    return named if version is None else and_(named, SoftPrompt.version == int(version))


def _unknown(reference: str) -> HunminError:
    return HunminError(
        ErrorCode.NOT_FOUND,
        f"There is no soft prompt {reference[:80]!r}. Name one of the account's own, as name or name@version.",
    )


def _info(row: SoftPrompt) -> SoftPromptInfo:
    values = {field: getattr(row, field) for field in SoftPromptInfo.model_fields}
    return SoftPromptInfo.model_validate(values)

"""Named versions: things of an account that are kept by name, each name's numbered from 1, and none given twice.

The two tables stay with the service, which derives them from the mixins here. It knows no noun, and opens no session.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId
from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

_REFERENCE = re.compile(r"([a-z][a-z0-9_-]{0,62})(?:@([1-9][0-9]{0,8}))?")


class VersionedName:
    """A name of an account, and the last version that it was given: a version that was deleted does not come again."""

    account_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    last_version: Mapped[int]


class NamedVersion:
    """One version. The table has a unique constraint on account, name and version."""

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str]
    name: Mapped[str]
    version: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class PageRequest(Protocol):
    """Which page of a list: `after` is the id that the page before ended with."""

    @property
    def account_id(self) -> AccountId: ...
    @property
    def name(self) -> str | None: ...
    @property
    def limit(self) -> int: ...
    @property
    def after(self) -> str | None: ...


RowT = TypeVar("RowT", bound=NamedVersion)


class Versions(Generic[RowT]):
    """The statements on a pair of tables. `noun` is what errors call a thing; `id_prefix`: its id is a reference too.

    A name alone means the first of its versions by `order`, and then the newest.
    """

    def __init__(
        self,
        row: type[RowT],
        names: type[VersionedName],
        *,
        noun: str,
        id_prefix: str | None = None,
        order: Sequence[ColumnElement[Any]] = (),
    ) -> None:
        self._row = row
        self._names = names
        self._noun = noun
        self._id = None if id_prefix is None else re.compile(rf"{id_prefix}_[0-9a-f]{{24}}")
        self._order = (*order, row.version.desc())

    async def add(
        self, session: AsyncSession, account_id: AccountId, values: dict[str, Any], *, unless: Sequence[str]
    ) -> RowT | None:
        """Add the next version of `values["name"]`; None if there is one with the same in the columns `unless`.

        Several may at once: each gets its own number, none is left out. `unless` has a unique constraint.
        """
        key = {"account_id": account_id, "name": values["name"]}
        held = insert(self._names).values(**key, last_version=0)
        # The row's lock is held until the commit, so that whoever comes next waits for it.
        held = held.on_conflict_do_update(index_elements=list(key), set_={"last_version": self._names.last_version})
        names = (await session.scalars(held.returning(self._names))).one()
        added = insert(self._row).values(**values, account_id=account_id, version=names.last_version + 1)
        added = added.on_conflict_do_nothing(index_elements=unless)
        row = await session.scalar(added.returning(self._row))
        if row is not None:
            names.last_version = row.version
        return row

    async def find(self, session: AsyncSession, account_id: AccountId, reference: str, *, lock: bool = False) -> RowT:
        """Return what `name@version`, `name` or an id names; `not_found` if the account has none."""
        wanted = self._meant(account_id, reference)
        row = await session.scalar(wanted.with_for_update() if lock else wanted)
        if row is None:
            raise self.unknown(reference)
        return row

    async def lock_name(self, session: AsyncSession, account_id: AccountId, name: str) -> None:
        """Wait for whoever adds a version of the name, or has locked it, and hold it until the commit."""
        held = and_(self._names.account_id == account_id, self._names.name == name)
        await session.execute(select(self._names.name).where(held).with_for_update())

    async def page(self, session: AsyncSession, request: PageRequest) -> tuple[Sequence[RowT], bool]:
        """List by name, newest version first; tell whether others follow."""
        row = self._row
        owned = row.account_id == request.account_id
        statement = select(row).where(owned).order_by(row.name, row.version.desc())
        if request.name is not None:
            statement = statement.where(row.name == request.name)
        if request.after is not None:
            last = await session.scalar(select(row).where(owned, row.id == request.after))
            if last is None:
                raise HunminError(
                    ErrorCode.INVALID_PARAMETER,
                    f"The {self._noun} that the page before ended with is gone. Begin again with the first page.",
                    param="cursor",
                )
            older = and_(row.name == last.name, row.version < last.version)
            statement = statement.where(or_(row.name > last.name, older))
        rows = (await session.scalars(statement.limit(request.limit + 1))).all()
        return rows[: request.limit], len(rows) > request.limit

    def parse(self, reference: str) -> tuple[str, int | None]:
        """Return name and version; `not_found` if that is none of both."""
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise self.unknown(reference)
        name, version = found.groups()
        return name, None if version is None else int(version)

    def unknown(self, reference: str) -> HunminError:
        """Return what a reference to nothing is answered with."""
        forms = "name or name@version" if self._id is None else "name, name@version or its id"
        return HunminError(
            ErrorCode.NOT_FOUND,
            f"There is no {self._noun} {reference[:80]!r}. Name one of the account's own, as {forms}.",
        )

    def _meant(self, account_id: AccountId, reference: str) -> Select[tuple[RowT]]:
        owned = select(self._row).where(self._row.account_id == account_id)
        if self._id is not None and self._id.fullmatch(reference):
            return owned.where(self._row.id == reference)
        name, version = self.parse(reference)
        named = owned.where(self._row.name == name)
        if version is not None:
            return named.where(self._row.version == version)
        return named.order_by(*self._order).limit(1)

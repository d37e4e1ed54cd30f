"""Which datasets there are: the only statements on their tables. It knows no files."""

import re
from typing import Any

from hunmin_contracts.datasets import DatasetInfo, DatasetPage, DatasetReport, ListRequest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId
from hunmin_kit.data import Database
from sqlalchemy import ColumnElement, and_, delete, or_, select
from sqlalchemy.dialects.postgresql import insert

from hunmin_tuning.datasets.tables import Dataset, DatasetNames, DatasetReports

_REFERENCE = re.compile(r"([a-z][a-z0-9_-]{0,62})(?:@([1-9][0-9]{0,8}))?")
_ID = re.compile(r"ds_[0-9a-f]{24}")
_REPORTS_KEPT = 20  # of a dataset
_CONTENT = ("encoding", "columns", "findings", "filename", "is_chat")


class Registry:
    """Versions by account and name. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, account_id: AccountId, **values: Any) -> DatasetInfo:
        """Add the next version of a name, or return the one that already has this file in this format."""
        name = values["name"]
        held = insert(DatasetNames).values(account_id=account_id, name=name, last_version=0)
        # The row's lock is held until the commit, so that the same file sent twice at once becomes one version.
        held = held.on_conflict_do_update(
            index_elements=["account_id", "name"], set_={"last_version": DatasetNames.last_version}
        )
        async with self._database.session() as session:
            last_version = await session.scalar(held.returning(DatasetNames.last_version)) or 0
            same = _same(account_id, name, values["digest"], values["format"])
            if (row := await session.scalar(select(Dataset).where(same))) is None:
                stored = {key: value for key, value in values.items() if key not in _CONTENT}
                row = Dataset(
                    account_id=account_id,
                    version=last_version + 1,
                    content={key: values[key] for key in _CONTENT},
                    **stored,
                )
                session.add(row)
                names = await session.get_one(DatasetNames, (account_id, name))
                names.last_version = last_version + 1
                await session.flush()
            return _info(row)

    async def find_same(self, account_id: AccountId, name: str, digest: str, format: str) -> DatasetInfo | None:
        """Return the version of a name that has this file in this format, if there is one."""
        async with self._database.session() as session:
            row = await session.scalar(select(Dataset).where(_same(account_id, name, digest, format)))
        return None if row is None else _info(row)

    async def find(self, account_id: AccountId, reference: str) -> DatasetInfo:
        """Return what an id or `name@version` names, or `name`'s newest version; `not_found` if there is none."""
        wanted = _wanted(account_id, reference)
        async with self._database.session() as session:
            row = await session.scalar(select(Dataset).where(wanted).order_by(Dataset.version.desc()).limit(1))
        if row is None:
            raise _unknown(reference)
        return _info(row)

    async def page(self, request: ListRequest) -> DatasetPage:
        """List by name, newest version first."""
        owned = Dataset.account_id == request.account_id
        statement = select(Dataset).where(owned).order_by(Dataset.name, Dataset.version.desc())
        if request.name is not None:
            statement = statement.where(Dataset.name == request.name)
        async with self._database.session() as session:
            if request.after is not None:
                last = await session.scalar(select(Dataset).where(owned, Dataset.id == request.after))
                if last is None:
                    raise HunminError(
                        ErrorCode.INVALID_PARAMETER,
                        "The dataset that the page before ended with is gone. Begin again with the first page.",
                        param="cursor",
                    )
                older = and_(Dataset.name == last.name, Dataset.version < last.version)
                statement = statement.where(or_(Dataset.name > last.name, older))
            rows = (await session.scalars(statement.limit(request.limit + 1))).all()
        return DatasetPage(data=[_info(row) for row in rows[: request.limit]], has_more=len(rows) > request.limit)

    async def remove(self, account_id: AccountId, reference: str) -> DatasetInfo:
        """Remove what `find` finds, with its reports, and return it."""
        newest = select(Dataset.id).where(_wanted(account_id, reference)).order_by(Dataset.version.desc()).limit(1)
        async with self._database.session() as session:
            row = await session.scalar(delete(Dataset).where(Dataset.id.in_(newest)).returning(Dataset))
        if row is None:
            raise _unknown(reference)
        return _info(row)

    async def find_report(self, info: DatasetInfo, question: str) -> DatasetReport | None:
        """Return the report that was made for this question, if it is still there."""
        async with self._database.session() as session:
            row = await session.get(DatasetReports, (info.id, question))
        return None if row is None else DatasetReport.model_validate(row.report)

    async def keep_report(self, info: DatasetInfo, question: str, report: DatasetReport) -> None:
        """Keep a report, if its dataset is still there; the oldest of many go."""
        kept = insert(DatasetReports).values(
            dataset_id=info.id, question=question, report=report.model_dump(mode="json")
        )
        own = DatasetReports.dataset_id == info.id
        old = (
            select(DatasetReports.question).where(own).order_by(DatasetReports.created_at.desc()).offset(_REPORTS_KEPT)
        )
        async with self._database.session() as session:
            there = select(Dataset.id).where(Dataset.id == info.id).with_for_update(read=True)
            if await session.scalar(there) is not None:
                await session.execute(kept.on_conflict_do_nothing())
                await session.execute(delete(DatasetReports).where(own, DatasetReports.question.in_(old)))


def _same(account_id: AccountId, name: str, digest: str, format: str) -> ColumnElement[bool]:
    return and_(
        Dataset.account_id == account_id, Dataset.name == name, Dataset.digest == digest, Dataset.format == format
    )


def _wanted(account_id: AccountId, reference: str) -> ColumnElement[bool]:
    owned = Dataset.account_id == account_id
    if _ID.fullmatch(reference):
        return and_(owned, Dataset.id == reference)
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise _unknown(reference)
    name, version = found.groups()
    named = and_(owned, Dataset.name == name)
    return named if version is None else and_(named, Dataset.version == int(version))


def _unknown(reference: str) -> HunminError:
    return HunminError(
        ErrorCode.NOT_FOUND,
        f"There is no dataset {reference[:80]!r}. Name one of the account's own, as name, name@version or its id.",
    )


def _info(row: Dataset) -> DatasetInfo:
    stored = set(DatasetInfo.model_fields) - set(_CONTENT)
    return DatasetInfo.model_validate(row.content | {field: getattr(row, field) for field in stored})

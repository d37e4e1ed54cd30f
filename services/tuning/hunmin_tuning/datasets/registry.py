"""Which datasets there are: the only statements on their tables. It knows no files."""

from typing import Any

from hunmin_contracts.datasets import DatasetInfo, DatasetPage, DatasetReport, ListRequest
from hunmin_contracts.ids import AccountId
from hunmin_kit.data import Database
from hunmin_kit.data.versions import Versions
from sqlalchemy import ColumnElement, and_, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from hunmin_tuning.datasets.tables import Dataset, DatasetNames, DatasetReports

_VERSIONS = Versions(Dataset, DatasetNames, noun="dataset", id_prefix="ds")
_REPORTS_KEPT = 20  # of a dataset
_CONTENT = ("encoding", "columns", "findings", "filename", "is_chat")


class Registry:
    """Versions by account and name. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, account_id: AccountId, **values: Any) -> DatasetInfo:
        """Add the next version of a name, or return the one that already has this file in this format."""
        stored = {key: value for key, value in values.items() if key not in _CONTENT}
        stored["content"] = {key: values[key] for key in _CONTENT}
        async with self._database.session() as session:
            row = await _VERSIONS.add(session, account_id, stored, unless=["account_id", "name", "digest", "format"])
            if row is None:
                same = _same(account_id, values["name"], values["digest"], values["format"])
                row = (await session.scalars(select(Dataset).where(same))).one()
            return _info(row)

    async def find_same(self, account_id: AccountId, name: str, digest: str, format: str) -> DatasetInfo | None:
        """Return the version of a name that has this file in this format, if there is one."""
        async with self._database.session() as session:
            row = await session.scalar(select(Dataset).where(_same(account_id, name, digest, format)))
        return None if row is None else _info(row)

    async def find(self, account_id: AccountId, reference: str) -> DatasetInfo:
        """Return what an id or `name@version` names, or `name`'s newest version; `not_found` if there is none."""
        async with self._database.session() as session:
            return _info(await _VERSIONS.find(session, account_id, reference))

    async def page(self, request: ListRequest) -> DatasetPage:
        """List by name, newest version first."""
        async with self._database.session() as session:
            rows, has_more = await _VERSIONS.page(session, request)
        return DatasetPage(data=[_info(row) for row in rows], has_more=has_more)

    async def remove(self, account_id: AccountId, reference: str) -> DatasetInfo:
        """Remove what `find` finds, with its reports, and return it."""
        async with self._database.session() as session:
            row = await _VERSIONS.find(session, account_id, reference, lock=True)
            await session.delete(row)
            return _info(row)

    async def stored_bytes(self, account_id: AccountId) -> int:
        """Return the bytes of all files of an account, and of their rows as far as they are measured."""
        total = func.coalesce(func.sum(Dataset.size_bytes + func.coalesce(Dataset.rows_bytes, 0)), 0)
        async with self._database.session() as session:
            return int(await session.scalar(select(total).where(Dataset.account_id == account_id)) or 0)

    async def unmeasured(self, account_id: AccountId) -> list[str]:
        """Return the ids of those whose rows are not measured."""
        async with self._database.session() as session:
            unmeasured = select(Dataset.id).where(Dataset.account_id == account_id, Dataset.rows_bytes.is_(None))
            return list(await session.scalars(unmeasured))

    async def measured(self, dataset_id: str, rows_bytes: int) -> None:
        """Note how large its rows are, if it is still there."""
        async with self._database.session() as session:
            await session.execute(update(Dataset).where(Dataset.id == dataset_id).values(rows_bytes=rows_bytes))

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


def _info(row: Dataset) -> DatasetInfo:
    stored = set(DatasetInfo.model_fields) - set(_CONTENT)
    return DatasetInfo.model_validate(row.content | {field: getattr(row, field) for field in stored})

"""The tables of datasets. Rows are handled by registry.py, and nowhere else."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from hunmin_tuning.tables import Table


class DatasetNames(Table):
    """A name of an account, and the last version that it was given: a version that was deleted does not come again."""

    __tablename__ = "dataset_names"

    account_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    last_version: Mapped[int]


class Dataset(Table):
    """One version: contracts' DatasetInfo, `info`. Its file and its rows are in the blob store, under its id."""

    __tablename__ = "datasets"
    __table_args__ = (
        UniqueConstraint("account_id", "name", "version"),
        UniqueConstraint("account_id", "name", "digest", "format"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str]
    name: Mapped[str]
    version: Mapped[int]
    format: Mapped[str]
    digest: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int]
    content: Mapped[dict[str, Any]]  # encoding, columns, findings
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class DatasetReports(Table):
    """A report that was made, by what was asked."""

    __tablename__ = "dataset_reports"

    dataset_id: Mapped[str] = mapped_column(ForeignKey(Dataset.id, ondelete="CASCADE"), primary_key=True)
    question: Mapped[str] = mapped_column(primary_key=True)
    report: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

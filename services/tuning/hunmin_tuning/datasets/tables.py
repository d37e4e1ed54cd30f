"""The tables of datasets. Rows are handled by registry.py, and nowhere else."""

from datetime import datetime
from typing import Any

from hunmin_kit.data.versions import NamedVersion, VersionedName
from sqlalchemy import BigInteger, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from hunmin_tuning.tables import Table


class DatasetNames(VersionedName, Table):
    """The names of datasets."""

    __tablename__ = "dataset_names"


class Dataset(NamedVersion, Table):
    """One version: contracts' DatasetInfo, `info`. Its file and its rows are in the blob store, under its id."""

    __tablename__ = "datasets"
    __table_args__ = (
        UniqueConstraint("account_id", "name", "version"),
        UniqueConstraint("account_id", "name", "digest", "format"),
        Index("ix_datasets_unmeasured", "account_id", postgresql_where=text("rows_bytes IS NULL")),
    )

    format: Mapped[str]
    digest: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    rows_bytes: Mapped[int | None] = mapped_column(BigInteger)  # of the rows' file; None: not measured yet
    rows: Mapped[int]
    content: Mapped[dict[str, Any]]  # encoding, columns, findings


class DatasetReports(Table):
    """A report that was made, by what was asked."""

    __tablename__ = "dataset_reports"

    dataset_id: Mapped[str] = mapped_column(ForeignKey(Dataset.id, ondelete="CASCADE"), primary_key=True)
    question: Mapped[str] = mapped_column(primary_key=True)
    report: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

"""The tables of schema `generation`. Rows are handled by soft_prompts/registry.py, and nowhere else."""

from datetime import datetime
from typing import Any, ClassVar

from hunmin_kit.data.versions import NamedVersion, VersionedName
from sqlalchemy import JSON, BigInteger, DateTime, Index, MetaData, String, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_NAMES = {"pk": "pk_%(table_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s"}


class Table(DeclarativeBase):
    """The base of the tables."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: String,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSON,  # as it was written: JSONB refuses U+0000
    }


class SoftPromptNames(VersionedName, Table):
    """The names of soft prompts."""

    __tablename__ = "soft_prompt_names"


class SoftPrompt(NamedVersion, Table):
    """One version, as contracts' SoftPromptInfo tells it. Its file is in the blob store, under its id.

    At most one of a name is promoted, and of a job there is at most one.
    """

    __tablename__ = "soft_prompts"
    __table_args__ = (
        UniqueConstraint("account_id", "name", "version"),
        UniqueConstraint("account_id", "job_id"),
        Index("uq_soft_prompts_promoted", "account_id", "name", unique=True, postgresql_where=text("is_promoted")),
    )

    model: Mapped[str]
    n_virtual: Mapped[int]
    d_model: Mapped[int]
    dtype: Mapped[str]
    digest: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    manifest: Mapped[dict[str, Any]]
    is_promoted: Mapped[bool] = mapped_column(server_default=text("false"))
    job_id: Mapped[str | None]
    origin: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

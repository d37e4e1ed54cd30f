"""The base of the tables of schema `tuning`. Those of jobs are in jobs/tables.py."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, DateTime, MetaData, String
from sqlalchemy.orm import DeclarativeBase

_NAMES = {"pk": "pk_%(table_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s"}


class Table(DeclarativeBase):
    """The base of the tables."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: String,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSON,  # as it was written: JSONB refuses U+0000
    }

"""The tables of schema `gateway`. Rows are handled by keys/ring.py, in usage/ and in quotas/, and nowhere else."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_NAMES = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}


class Table(DeclarativeBase):
    """The base of the tables."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map: ClassVar[dict[Any, Any]] = {str: String, datetime: DateTime(timezone=True), bytes: LargeBinary}


class Account(Table):
    """Who owns keys and usage."""

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ApiKey(Table):
    """A key by its HMAC; the key itself is nowhere."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    name: Mapped[str]
    prefix: Mapped[str]
    digest: Mapped[bytes] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]


class Usage(Table):
    """What one request used. Append-only. A client may choose the same request id twice, so it is no key."""

    __tablename__ = "usage"
    __table_args__ = (
        Index(None, "account_id", "started_at", "id"),
        CheckConstraint("status in ('succeeded', 'failed', 'cancelled')", name="status"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(index=True)
    account_id: Mapped[str]
    key_id: Mapped[str]
    model: Mapped[str]
    endpoint: Mapped[str]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    backward_tokens: Mapped[int] = mapped_column(server_default="0")
    status: Mapped[str]
    error_code: Mapped[str | None]
    started_at: Mapped[datetime]
    duration_s: Mapped[float]  # from the acceptance of the request to the end of its answer


class QuotaLimit(Table):
    """A limit of an account. `model` and `purpose` are `*` where it counts all of them together."""

    __tablename__ = "quota_limits"
    __table_args__ = (UniqueConstraint("account_id", "model", "purpose", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    model: Mapped[str]
    purpose: Mapped[str]
    name: Mapped[str]
    value: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class QuotaCounter(Table):
    """What is taken of a limit in the minute or month that begins then; from the epoch on, what runs at a time.

    It refers to no limit by a foreign key: each request would lock its limits for one, and what outlives a limit is
    tidied away.
    """

    __tablename__ = "quota_counters"
    __table_args__ = (CheckConstraint("used >= 0 and reserved >= 0", name="taken"),)

    limit_id: Mapped[str] = mapped_column(primary_key=True)
    begins_at: Mapped[datetime] = mapped_column(primary_key=True)
    ends_at: Mapped[datetime | None] = mapped_column(index=True)
    used: Mapped[int] = mapped_column(BigInteger)
    reserved: Mapped[int] = mapped_column(BigInteger)


class QuotaReservation(Table):
    """What a running request has reserved of one limit, until its lease runs out.

    One that was swept has given its amount back; it is kept for a late settlement.
    """

    __tablename__ = "quota_reservations"
    __table_args__ = (
        Index("ix_quota_reservations_due", "expires_at", postgresql_where=text("swept_at IS NULL")),
        Index("ix_quota_reservations_swept_at", "swept_at", postgresql_where=text("swept_at IS NOT NULL")),
    )

    usage_id: Mapped[str] = mapped_column(primary_key=True)
    limit_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    begins_at: Mapped[datetime]
    amount: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime]
    swept_at: Mapped[datetime | None]


class MeteredCall(Table):
    """What generation told of a call whose exchange has no row of usage yet. Rows are handled by usage/lost.py."""

    __tablename__ = "metered_calls"

    event_id: Mapped[str] = mapped_column(primary_key=True)
    usage_id: Mapped[str] = mapped_column(index=True)
    request_id: Mapped[str]
    account_id: Mapped[str]
    key_id: Mapped[str]
    model: Mapped[str]
    endpoint: Mapped[str]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    backward_tokens: Mapped[int]
    outcome: Mapped[str]
    error_code: Mapped[str | None]
    started_at: Mapped[datetime]  # of the exchange
    ended_at: Mapped[datetime]  # of the call
    noted_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

"""The tables of events, the same in every schema that has them. Made by migration.py; each has its statements in one
module: the outbox in outbox.py and direct.py, the others in lease.py, attempts.py, consumer.py and direct.py."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    cast,
    func,
    literal,
    text,
)
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import Interval, UserDefinedType

_MOMENT = DateTime(timezone=True)


class TransactionId(UserDefinedType[Any]):
    """PostgreSQL's xid8: numbers of transactions that do not wrap around. Compared in the database only."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the name of the type."""
        return "xid8"


METADATA = MetaData()

# `transaction` and `number` order events as they were committed; `sequence` is given by the relay, in that order.
OUTBOX = Table(
    "event_outbox",
    METADATA,
    Column("number", BigInteger, Identity(always=True), primary_key=True),
    Column("transaction", TransactionId, nullable=False, server_default=text("pg_current_xact_id()")),
    Column("topic", String, nullable=False),
    Column("key", String, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("written_at", _MOMENT, nullable=False, server_default=func.clock_timestamp()),
    Column("sequence", BigInteger),
    Column("relayed_at", _MOMENT),
)

# Whose turn it is, by a token of each claim.
LEASES = Table(
    "event_leases",
    METADATA,
    Column("name", String, primary_key=True),
    Column("token", String, nullable=False),
    Column("expires_at", _MOMENT, nullable=False),
)

# Up to which `sequence` of a topic a consumer is done, where it reads outboxes directly.
POSITIONS = Table(
    "event_positions",
    METADATA,
    Column("consumer", String, primary_key=True),
    Column("topic", String, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)

# The events whose effect is in this schema.
PROCESSED = Table(
    "event_processed",
    METADATA,
    Column("consumer", String, primary_key=True),
    Column("event_id", String, primary_key=True),
    Column("processed_at", _MOMENT, nullable=False, server_default=func.clock_timestamp()),
)

# Deliveries that are being tried: `place` is where on the bus. With `died_at` a dead letter, with `redriven_at` one
# that is tried again; only these have what was delivered.
ATTEMPTS = Table(
    "event_attempts",
    METADATA,
    Column("number", BigInteger, Identity(always=True), primary_key=True),
    Column("consumer", String, nullable=False),
    Column("place", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", String),
    Column("topic", String),
    Column("key", String),
    Column("headers", JSON),
    Column("content", LargeBinary),
    Column("died_at", _MOMENT),
    Column("redriven_at", _MOMENT),
)


def in_seconds(seconds: float) -> ColumnElement[Any]:
    """Return the database's time in so many seconds; negative: so long ago."""
    return func.clock_timestamp() + cast(literal(f"{seconds} seconds"), Interval)

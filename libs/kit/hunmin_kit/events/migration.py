"""Makes the tables of events in a service's schema: one line in a revision of its chain.

Revisions that were released call these functions for ever: a change of a table is another function here, never an edit.
"""

import sqlalchemy as sa
from alembic import op
from hunmin_contracts.events import MAX_EVENT_BYTES

from hunmin_kit.events.tables import TransactionId

_MOMENT = sa.DateTime(timezone=True)
_WAITING = sa.text("sequence IS NULL")
_RELAYED = sa.text("sequence IS NOT NULL")


def create() -> None:
    """Make the tables."""
    op.execute(sa.schema.CreateSequence(sa.Sequence("event_outbox_sequence", data_type=sa.BigInteger)))
    op.create_table(
        "event_outbox",
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("transaction", TransactionId, nullable=False, server_default=sa.text("pg_current_xact_id()")),
        sa.Column("topic", sa.String, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("headers", sa.JSON, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("written_at", _MOMENT, nullable=False, server_default=sa.func.clock_timestamp()),
        sa.Column("sequence", sa.BigInteger),
        sa.Column("relayed_at", _MOMENT),
        sa.PrimaryKeyConstraint("number", name="pk_event_outbox"),
        # What a broker would refuse must not get in: it could never be relayed, nor what comes after it.
        sa.CheckConstraint(f"octet_length(content) <= {MAX_EVENT_BYTES}", name="ck_event_outbox_size"),
    )
    op.create_index("ix_event_outbox_waiting", "event_outbox", ["transaction", "number"], postgresql_where=_WAITING)
    op.create_index("uq_event_outbox_sequence", "event_outbox", ["sequence"], unique=True, postgresql_where=_RELAYED)
    op.create_index("ix_event_outbox_topic", "event_outbox", ["topic", "sequence"], postgresql_where=_RELAYED)
    op.create_table(
        "event_leases",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("token", sa.String, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_event_leases"),
    )
    op.create_table(
        "event_positions",
        sa.Column("consumer", sa.String, nullable=False),
        sa.Column("topic", sa.String, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("consumer", "topic", name="pk_event_positions"),
    )
    op.create_table(
        "event_processed",
        sa.Column("consumer", sa.String, nullable=False),
        sa.Column("event_id", sa.String, nullable=False),
        sa.Column("processed_at", _MOMENT, nullable=False, server_default=sa.func.clock_timestamp()),
        sa.PrimaryKeyConstraint("consumer", "event_id", name="pk_event_processed"),
    )
    op.create_index("ix_event_processed_processed_at", "event_processed", ["processed_at"])
    op.create_table(
        "event_attempts",
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("consumer", sa.String, nullable=False),
        sa.Column("place", sa.String, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error", sa.String),
        sa.Column("topic", sa.String),
        sa.Column("key", sa.String),
        sa.Column("headers", sa.JSON),
        sa.Column("content", sa.LargeBinary),
        sa.Column("died_at", _MOMENT),
        sa.Column("redriven_at", _MOMENT),
        sa.PrimaryKeyConstraint("number", name="pk_event_attempts"),
        sa.UniqueConstraint("consumer", "place", name="uq_event_attempts_consumer_place"),
    )


def drop() -> None:
    """Drop what `create` made, with every event that was not relayed and every dead letter."""
    for table in ("event_attempts", "event_processed", "event_positions", "event_leases", "event_outbox"):
        op.drop_table(table)
    op.execute(sa.schema.DropSequence(sa.Sequence("event_outbox_sequence")))

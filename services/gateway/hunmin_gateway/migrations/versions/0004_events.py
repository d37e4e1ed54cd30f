"""Events, and the calls that they tell of until their exchange is settled."""

import sqlalchemy as sa
from alembic import op
from hunmin_kit.events import migration

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    migration.create()
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "metered_calls",
        sa.Column("event_id", sa.String, nullable=False),
        sa.Column("usage_id", sa.String, nullable=False),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("endpoint", sa.String, nullable=False),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("completion_tokens", sa.Integer, nullable=False),
        sa.Column("backward_tokens", sa.Integer, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("error_code", sa.String),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("ended_at", moment, nullable=False),
        sa.Column("noted_at", moment, nullable=False, server_default=sa.func.clock_timestamp()),
        sa.PrimaryKeyConstraint("event_id", name="pk_metered_calls"),
    )
    op.create_index("ix_metered_calls_usage_id", "metered_calls", ["usage_id"])


def downgrade() -> None:
    """Drop them, with what lost gateways owe."""
    op.drop_table("metered_calls")
    migration.drop()

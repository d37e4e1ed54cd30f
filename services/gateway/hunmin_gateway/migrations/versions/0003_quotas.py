"""Limits of accounts, what is taken of them, and what running requests have reserved. New tables alone."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the three tables."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "quota_limits",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.Column("created_at", moment, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="pk_quota_limits"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_quota_limits_account_id"),
        # Also the index by which the limits of an account are found.
        sa.UniqueConstraint("account_id", "model", "purpose", "name", name="uq_quota_limits_account_id"),
    )
    op.create_table(
        "quota_counters",
        sa.Column("limit_id", sa.String, nullable=False),
        sa.Column("begins_at", moment, nullable=False),
        sa.Column("ends_at", moment),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.Column("reserved", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("limit_id", "begins_at", name="pk_quota_counters"),
        sa.CheckConstraint("used >= 0 and reserved >= 0", name="ck_quota_counters_taken"),
    )
    op.create_index("ix_quota_counters_ends_at", "quota_counters", ["ends_at"])
    op.create_table(
        "quota_reservations",
        sa.Column("usage_id", sa.String, nullable=False),
        sa.Column("limit_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("begins_at", moment, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.Column("swept_at", moment),
        sa.PrimaryKeyConstraint("usage_id", "limit_id", name="pk_quota_reservations"),
    )
    op.create_index(
        "ix_quota_reservations_due",
        "quota_reservations",
        ["expires_at"],
        postgresql_where=sa.text("swept_at IS NULL"),
    )
    op.create_index(
        "ix_quota_reservations_swept_at",
        "quota_reservations",
        ["swept_at"],
        postgresql_where=sa.text("swept_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Drop what `upgrade` made: nothing is limited any more."""
    op.drop_table("quota_reservations")
    op.drop_table("quota_counters")
    op.drop_table("quota_limits")

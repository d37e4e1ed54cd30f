"""Jobs, and the journal of what each told."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the two tables."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "jobs",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("is_cancel_wanted", sa.Boolean, nullable=False),
        sa.Column("is_publishing", sa.Boolean, nullable=False),
        sa.Column("is_orphaned", sa.Boolean, nullable=False),
        sa.Column("token", sa.String),
        sa.Column("lease_expires_at", moment),
        sa.Column("not_before", moment, nullable=False, server_default=sa.func.now()),
        sa.Column("step", sa.Integer, nullable=False, server_default="0"),
        sa.Column("total_steps", sa.Integer),
        sa.Column("log_offset", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("last_sequence", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("error", sa.JSON),
        sa.Column("result", sa.JSON),
        sa.Column("soft_prompt", sa.String),
        sa.Column("created_at", moment, nullable=False, server_default=sa.func.now()),
        sa.Column("started_at", moment),
        sa.Column("ended_at", moment),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("number", name="uq_jobs_number"),
    )
    op.create_index("ix_jobs_account_id_number", "jobs", ["account_id", "number"])
    op.create_index("ix_jobs_open", "jobs", ["state", "number"], postgresql_where=sa.text("ended_at IS NULL"))
    op.create_table(
        "journal_entries",
        sa.Column("job_id", sa.String, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("step", sa.Integer),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("at", moment, nullable=False, server_default=sa.func.clock_timestamp()),
        sa.PrimaryKeyConstraint("job_id", "sequence", name="pk_journal_entries"),
        sa.UniqueConstraint("job_id", "kind", "step", name="uq_journal_entries_job_id_kind_step"),
    )


def downgrade() -> None:
    """Drop what `upgrade` made."""
    op.drop_table("journal_entries")
    op.drop_table("jobs")

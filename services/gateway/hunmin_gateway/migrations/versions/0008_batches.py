"""Batches with their files and lines, and idempotency keys. Rows of usage of the previous release have no batch."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_MOMENT = sa.DateTime(timezone=True)
_NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    """Make the tables, and add the columns."""
    op.add_column("usage", sa.Column("batch_id", sa.String))
    op.add_column("metered_calls", sa.Column("batch_id", sa.String))
    op.create_table(
        "files",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("project_id", sa.String, nullable=False),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("filename", sa.String, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
    )
    op.create_index("ix_files_account_id_created_at", "files", ["account_id", "created_at"])
    _create_batches()
    _create_lines()
    op.create_table(
        "idempotency_keys",
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("project_id", sa.String, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("claim", sa.String, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("headers", sa.JSON),
        sa.Column("body", sa.LargeBinary),
        sa.PrimaryKeyConstraint("account_id", "project_id", "key", name="pk_idempotency_keys"),
        sa.UniqueConstraint("claim", name="uq_idempotency_keys_claim"),
    )
    op.create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"])


def _create_batches() -> None:
    moments = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    op.create_table(
        "batches",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("project_id", sa.String, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("key_kind", sa.String, nullable=False),
        sa.Column("endpoint", sa.String, nullable=False),
        sa.Column("input_file_id", sa.String, nullable=False),
        sa.Column("dataset_id", sa.String),
        sa.Column("attributes", sa.JSON, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("ends_as", sa.String),
        *(sa.Column(name, sa.Integer, nullable=False, server_default="0") for name in ("total", "completed", "failed")),
        sa.Column("errors", sa.JSON),
        sa.Column("output_file_id", sa.String),
        sa.Column("error_file_id", sa.String),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=_NOW),
        sa.Column("expires_at", _MOMENT, nullable=False),
        *(sa.Column(f"{name}_at", _MOMENT) for name in moments),
        sa.Column("claim", sa.String),
        sa.Column("due_at", _MOMENT),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    op.create_index("ix_batches_account_id_created_at", "batches", ["account_id", "created_at", "id"])
    op.create_index("ix_batches_due_at", "batches", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL"))


def _create_lines() -> None:
    op.create_table(
        "batch_lines",
        sa.Column("batch_id", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("custom_id", sa.String, nullable=False),
        sa.Column("body", sa.String, nullable=False),
        sa.Column("claim", sa.String),
        sa.Column("due_at", _MOMENT, server_default=_NOW),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("request_id", sa.String),
        sa.Column("status_code", sa.Integer),
        sa.Column("response", sa.String),
        sa.PrimaryKeyConstraint("batch_id", "number", name="pk_batch_lines"),
    )
    is_due, is_claimed = sa.text("due_at IS NOT NULL"), sa.text("claim IS NOT NULL")
    op.create_index("ix_batch_lines_due", "batch_lines", ["batch_id", "number", "due_at"], postgresql_where=is_due)
    op.create_index("ix_batch_lines_claim", "batch_lines", ["batch_id", "claim"], postgresql_where=is_claimed)


def downgrade() -> None:
    """Drop them, with all batches and the rows of their files."""
    op.drop_table("idempotency_keys")
    op.drop_table("batch_lines")
    op.drop_table("batches")
    op.drop_table("files")
    op.drop_column("metered_calls", "batch_id")
    op.drop_column("usage", "batch_id")

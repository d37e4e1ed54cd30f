"""Datasets by name and version, and the reports that were made of them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the three tables."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "dataset_names",
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("last_version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "name", name="pk_dataset_names"),
    )
    op.create_table(
        "datasets",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("format", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("created_at", moment, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.UniqueConstraint("account_id", "name", "version", name="uq_datasets_account_id_name_version"),
        sa.UniqueConstraint("account_id", "name", "digest", "format", name="uq_datasets_account_id_name_digest_format"),
    )
    op.create_table(
        "dataset_reports",
        sa.Column("dataset_id", sa.String, nullable=False),
        sa.Column("question", sa.String, nullable=False),
        sa.Column("report", sa.JSON, nullable=False),
        sa.Column("created_at", moment, nullable=False, server_default=sa.func.clock_timestamp()),
        sa.PrimaryKeyConstraint("dataset_id", "question", name="pk_dataset_reports"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], ondelete="CASCADE"),
    )


def downgrade() -> None:
    """Drop what `upgrade` made; the files stay in the blob store."""
    op.drop_table("dataset_reports")
    op.drop_table("datasets")
    op.drop_table("dataset_names")

"""Soft prompts by name and version, and the last version that each name was given."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the two tables."""
    op.create_table(
        "soft_prompt_names",
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("last_version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "name", name="pk_soft_prompt_names"),
    )
    op.create_table(
        "soft_prompts",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("n_virtual", sa.Integer, nullable=False),
        sa.Column("d_model", sa.Integer, nullable=False),
        sa.Column("dtype", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("manifest", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="pk_soft_prompts"),
        sa.UniqueConstraint("account_id", "name", "version", name="uq_soft_prompts_account_id_name_version"),
    )


def downgrade() -> None:
    """Drop what `upgrade` made; the files stay in the blob store."""
    op.drop_table("soft_prompts")
    op.drop_table("soft_prompt_names")

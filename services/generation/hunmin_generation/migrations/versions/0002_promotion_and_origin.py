"""Which version of a name is promoted, and the tuning job that a version comes from."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns; the release before neither reads nor writes them."""
    op.add_column("soft_prompts", sa.Column("is_promoted", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("soft_prompts", sa.Column("job_id", sa.String))
    op.add_column("soft_prompts", sa.Column("origin", sa.JSON))
    op.create_unique_constraint("uq_soft_prompts_account_id_job_id", "soft_prompts", ["account_id", "job_id"])
    op.create_index(
        "uq_soft_prompts_promoted",
        "soft_prompts",
        ["account_id", "name"],
        unique=True,
        postgresql_where=sa.text("is_promoted"),
    )


def downgrade() -> None:
    """Drop what `upgrade` made."""
    op.drop_index("uq_soft_prompts_promoted", "soft_prompts")
    op.drop_constraint("uq_soft_prompts_account_id_job_id", "soft_prompts")
    for column in ("origin", "job_id", "is_promoted"):
        op.drop_column("soft_prompts", column)

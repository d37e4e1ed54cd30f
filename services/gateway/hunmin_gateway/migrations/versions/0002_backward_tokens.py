"""Gradients are metered in backward tokens. The previous release writes rows without them, which means none."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("usage", sa.Column("backward_tokens", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop it, with its counts."""
    op.drop_column("usage", "backward_tokens")

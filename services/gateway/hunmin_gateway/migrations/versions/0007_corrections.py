"""A row of usage may add to another, of a request that was cut. The previous release writes none."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column."""
    op.add_column("usage", sa.Column("corrects", sa.String, nullable=True))
    op.create_unique_constraint("uq_usage_corrects", "usage", ["corrects"])


def downgrade() -> None:
    """Drop it; what was added becomes a request of its own."""
    op.drop_column("usage", "corrects")

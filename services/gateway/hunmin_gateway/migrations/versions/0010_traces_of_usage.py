"""A row of usage knows the trace that its request was part of. The previous release writes none."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("usage", sa.Column("trace_id", sa.String))
    op.add_column("metered_calls", sa.Column("trace_id", sa.String))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("metered_calls", "trace_id")
    op.drop_column("usage", "trace_id")

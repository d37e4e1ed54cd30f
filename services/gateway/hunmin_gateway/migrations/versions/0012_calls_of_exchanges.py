"""What generation tells of a call says how many calls its exchange makes. The previous release writes none."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column."""
    op.add_column("metered_calls", sa.Column("calls", sa.Integer))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("metered_calls", "calls")

"""What becomes of jobs is told by events, and datasets know how much is kept of them."""

import sqlalchemy as sa
from alembic import op
from hunmin_kit.events import migration

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables of events, and the column. The release before writes no size: it is measured when it is asked."""
    migration.create()
    op.add_column("datasets", sa.Column("rows_bytes", sa.BigInteger))
    op.create_index(
        "ix_datasets_unmeasured", "datasets", ["account_id"], postgresql_where=sa.text("rows_bytes IS NULL")
    )


def downgrade() -> None:
    """Drop what `upgrade` made, with the events that were not relayed."""
    op.drop_index("ix_datasets_unmeasured", "datasets")
    op.drop_column("datasets", "rows_bytes")
    migration.drop()

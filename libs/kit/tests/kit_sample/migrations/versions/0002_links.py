"""A table whose constraint is checked at commit."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "links",
        sa.Column("note", sa.Integer, sa.ForeignKey("notes.id", deferrable=True, initially="DEFERRED")),
    )

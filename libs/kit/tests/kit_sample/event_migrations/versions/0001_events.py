"""A schema that tells and handles events, and a table for their effects."""

import sqlalchemy as sa
from alembic import op
from hunmin_kit.events import migration

revision = "0001"
down_revision = None


def upgrade() -> None:
    migration.create()
    op.create_table(
        "effects",
        sa.Column("number", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("consumer", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("value", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("effects")
    migration.drop()

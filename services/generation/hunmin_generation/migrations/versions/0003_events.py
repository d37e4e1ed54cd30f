"""The usage of each call is told by events."""

from hunmin_kit.events import migration

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables of events."""
    migration.create()


def downgrade() -> None:
    """Drop them, with what was not relayed."""
    migration.drop()

"""The tables of the built-in provider of identities."""

from hunmin_kit.identity.local import migration

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    migration.create()


def downgrade() -> None:
    """Drop them."""
    migration.drop()

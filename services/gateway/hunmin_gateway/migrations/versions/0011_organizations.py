"""Which organisation of the identity provider an account is, whatever its name becomes. Until now: that of its name.

The previous release makes accounts without one: a trigger gives them that of their name, unless another account has it.
It goes when no such release can run any more.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_FUNCTION = """
    CREATE FUNCTION give_account_its_organization() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT EXISTS (SELECT 1 FROM accounts WHERE organization = NEW.name) THEN
            NEW.organization := NEW.name;
        END IF;
        RETURN NEW;
    END $$
"""
_TRIGGER = """
    CREATE TRIGGER give_account_its_organization BEFORE INSERT ON accounts
    FOR EACH ROW WHEN (NEW.organization IS NULL) EXECUTE FUNCTION give_account_its_organization()
"""


def upgrade() -> None:
    """Add the column, and what gives the previous release's accounts theirs."""
    op.add_column("accounts", sa.Column("organization", sa.String, nullable=True))
    op.execute(_FUNCTION)
    op.execute(_TRIGGER)
    op.execute("UPDATE accounts SET organization = name")
    op.create_unique_constraint("uq_accounts_organization", "accounts", ["organization"])


def downgrade() -> None:
    """Drop it; organisations are accounts by their names again."""
    op.execute("DROP TRIGGER give_account_its_organization ON accounts")
    op.execute("DROP FUNCTION give_account_its_organization")
    op.drop_column("accounts", "organization")

"""The database refuses to change or delete a row of usage, as one of the audit. The previous release does neither.

The trigger is of statements that are no INSERT: the row that every request writes pays nothing for it. A migration that
fills a new column of old rows disables it for that statement, in the same transaction.
"""

from alembic import op

revision = "0013"
down_revision = "0012"

_FUNCTION = """
    CREATE FUNCTION refuse_to_change_usage() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'usage is append-only';
    END $$
"""
_TRIGGER = """
    CREATE TRIGGER refuse_to_change_usage BEFORE UPDATE OR DELETE OR TRUNCATE ON usage
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_usage()
"""


def upgrade() -> None:
    """Make the trigger."""
    op.execute(_FUNCTION)
    op.execute(_TRIGGER)


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP TRIGGER refuse_to_change_usage ON usage")
    op.execute("DROP FUNCTION refuse_to_change_usage()")

"""Rows of usage from before there were projects get the project of their key, a few at a time: the ledger goes on."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_AT_ONCE = 10_000
# Of a key that is gone nobody knows the project: such rows stay without one.
_SOME = sa.text("""
UPDATE usage SET project_id = found.project_id
FROM (
    SELECT usage.id, api_keys.project_id FROM usage JOIN api_keys ON api_keys.id = usage.key_id
    WHERE usage.project_id IS NULL LIMIT :at_once
) AS found
WHERE usage.id = found.id
""")


def upgrade() -> None:
    """Fill the column, then index it; each part is committed alone, and may be done again."""
    with op.get_context().autocommit_block():
        while op.get_bind().execute(_SOME, {"at_once": _AT_ONCE}).rowcount:
            pass
        op.create_index(
            "ix_usage_project_id_started_at_id",
            "usage",
            ["project_id", "started_at", "id"],
            if_not_exists=True,
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    """Drop the index; the rows keep their projects."""
    op.drop_index("ix_usage_project_id_started_at_id", "usage", if_exists=True)

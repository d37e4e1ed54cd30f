"""Makes the tables of the built-in provider in a service's schema: one line in a revision of its chain.

Revisions that were released call these functions for ever: a change of a table is another function here, never an edit.
"""

import sqlalchemy as sa
from alembic import op

_MOMENT = sa.DateTime(timezone=True)


def create() -> None:
    """Make the tables."""
    op.create_table(
        "local_users",
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("name", sa.String),
        sa.Column("organizations", sa.ARRAY(sa.String), nullable=False),
        sa.Column("roles", sa.ARRAY(sa.String), nullable=False),
        sa.Column("password_hash", sa.String, nullable=False),
        sa.Column("password_changed_at", _MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("disabled_at", _MOMENT),
        sa.PrimaryKeyConstraint("subject", name="pk_local_users"),
        sa.UniqueConstraint("email", name="uq_local_users_email"),
    )
    op.create_table(
        "local_invitations",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("email", sa.String),
        sa.Column("subject", sa.String),
        sa.Column("organizations", sa.ARRAY(sa.String), nullable=False),
        sa.Column("roles", sa.ARRAY(sa.String), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_local_invitations"),
    )
    op.create_table(
        "local_attempts",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("locked_until", _MOMENT, nullable=False),
        sa.Column("last_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_local_attempts"),
    )
    op.create_index("ix_local_attempts_last_at", "local_attempts", ["last_at"])


def drop() -> None:
    """Drop them, and with them every local user."""
    op.drop_table("local_attempts")
    op.drop_table("local_invitations")
    op.drop_table("local_users")

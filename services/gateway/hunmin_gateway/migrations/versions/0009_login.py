"""Sessions of browsers, and the studio's own users. New tables alone."""

import sqlalchemy as sa
from alembic import op
from hunmin_kit.identity.local import migration

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the tables."""
    migration.create()
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "sessions",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("csrf", sa.String, nullable=False),
        sa.Column("issuer", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("email", sa.String),
        sa.Column("name", sa.String),
        sa.Column("organizations", sa.ARRAY(sa.String), nullable=False),
        sa.Column("roles", sa.ARRAY(sa.String), nullable=False),
        sa.Column("provider_session_id", sa.String),
        sa.Column("claims_expire_at", moment, nullable=False),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("renewing_until", moment),
        sa.Column("begun_at", moment, nullable=False, server_default=sa.func.now()),
        sa.Column("last_used_at", moment, nullable=False, server_default=sa.func.now()),
        sa.Column("expires_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_sessions"),
    )
    op.create_index("ix_sessions_issuer_subject", "sessions", ["issuer", "subject"])
    op.create_index("ix_sessions_provider_session_id", "sessions", ["provider_session_id"])
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])


def downgrade() -> None:
    """Drop them: everybody is logged out, and local users are gone."""
    op.drop_table("sessions")
    migration.drop()

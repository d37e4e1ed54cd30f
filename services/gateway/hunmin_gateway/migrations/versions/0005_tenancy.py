"""Projects, users, members, what keys may do, and the audit of changes.

The previous release makes keys and writes usage without a project: triggers put them into their account's default one.
They go when no such release can run any more.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

_MOMENT = sa.DateTime(timezone=True)

# An account that has no default project gets one; its id is made of the account's.
_DEFAULT_PROJECTS = """
INSERT INTO projects (id, account_id, name, is_default)
SELECT 'proj_' || substr(accounts.id, 6), accounts.id, 'default', true FROM accounts WHERE {which}
ON CONFLICT DO NOTHING
"""

_PROJECT_OF_KEY = (
    f"""
    CREATE FUNCTION put_key_into_default_project() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {_DEFAULT_PROJECTS.format(which="accounts.id = NEW.account_id")};
        SELECT id INTO NEW.project_id FROM projects WHERE account_id = NEW.account_id AND is_default;
        RETURN NEW;
    END $$
    """,  # noqa: S608  # our own text
    """
    CREATE TRIGGER put_key_into_default_project BEFORE INSERT ON api_keys
    FOR EACH ROW WHEN (NEW.project_id IS NULL) EXECUTE FUNCTION put_key_into_default_project()
    """,
)
_PROJECT_OF_USAGE = (
    """
    CREATE FUNCTION put_usage_into_project_of_key() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        SELECT project_id INTO NEW.project_id FROM api_keys WHERE id = NEW.key_id;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER put_usage_into_project_of_key BEFORE INSERT ON usage
    FOR EACH ROW WHEN (NEW.project_id IS NULL) EXECUTE FUNCTION put_usage_into_project_of_key()
    """,
)
_AUDIT_IS_APPEND_ONLY = (
    """
    CREATE FUNCTION refuse_to_change_audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'audit_entries is append-only';
    END $$
    """,
    """
    CREATE TRIGGER refuse_to_change_audit BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_audit()
    """,
)


def upgrade() -> None:
    """Make the tables, and put what there is into default projects."""
    op.add_column("accounts", sa.Column("suspended_at", _MOMENT))
    _make_projects()
    _make_users_and_members()
    _make_audit()
    _extend_keys()
    op.add_column("usage", sa.Column("project_id", sa.String))
    _execute(*_PROJECT_OF_USAGE)


def downgrade() -> None:
    """Drop what `upgrade` made, with every project, user, member and audit entry."""
    op.execute("DROP TRIGGER put_usage_into_project_of_key ON usage")
    op.execute("DROP FUNCTION put_usage_into_project_of_key()")
    op.drop_column("usage", "project_id")
    op.execute("DROP TRIGGER put_key_into_default_project ON api_keys")
    op.execute("DROP FUNCTION put_key_into_default_project()")
    for column in ("replaced_by", "created_by", "is_account_wide", "scopes", "kind", "project_id"):
        op.drop_column("api_keys", column)
    op.drop_table("audit_entries")
    op.execute("DROP FUNCTION refuse_to_change_audit()")
    op.drop_table("members")
    op.drop_table("users")
    op.drop_table("projects")
    op.drop_column("accounts", "suspended_at")


def _execute(*statements: str) -> None:
    for statement in statements:  # the driver takes one at a time
        op.execute(statement)


def _make_projects() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("is_default", sa.Boolean, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("archived_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_projects_account_id"),
        sa.UniqueConstraint("account_id", "name", name="uq_projects_account_id_name"),
    )
    is_default = sa.text("is_default")
    op.create_index("uq_projects_default", "projects", ["account_id"], unique=True, postgresql_where=is_default)
    op.execute(_DEFAULT_PROJECTS.format(which="true"))


def _make_users_and_members() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("issuer", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("email", sa.String),
        sa.Column("name", sa.String),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("last_seen_at", _MOMENT),
        sa.Column("disabled_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("issuer", "subject", name="uq_users_issuer_subject"),
    )
    op.create_table(
        "members",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("project_id", sa.String),
        sa.Column("user_id", sa.String),
        sa.Column("email", sa.String),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="pk_members"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_members_account_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_members_project_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_members_user_id"),
        sa.CheckConstraint("role in ('owner', 'admin', 'developer', 'viewer')", name="ck_members_role"),
        sa.CheckConstraint("(user_id IS NULL) <> (email IS NULL)", name="ck_members_who"),
    )
    place = sa.text("coalesce(project_id, '')")  # nulls are distinct in an index, and the whole account is one place
    op.create_index("uq_members_user", "members", ["account_id", place, "user_id"], unique=True)
    op.create_index("uq_members_email", "members", ["account_id", place, "email"], unique=True)
    op.create_index("ix_members_user_id", "members", ["user_id"])
    op.create_index("ix_members_email", "members", ["email"])


def _make_audit() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("at", _MOMENT, nullable=False, server_default=sa.func.clock_timestamp()),
        sa.Column("account_id", sa.String),
        sa.Column("project_id", sa.String),
        sa.Column("actor_kind", sa.String, nullable=False),
        sa.Column("actor_id", sa.String),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("subject_id", sa.String, nullable=False),
        sa.Column("before", postgresql.JSONB),
        sa.Column("after", postgresql.JSONB),
        sa.Column("request_id", sa.String),
        sa.PrimaryKeyConstraint("id", name="pk_audit_entries"),
        sa.CheckConstraint("actor_kind in ('key', 'user', 'operator', 'cli')", name="ck_audit_entries_actor_kind"),
    )
    op.create_index("ix_audit_entries_account_id_at_id", "audit_entries", ["account_id", "at", "id"])
    op.create_index("ix_audit_entries_at_id", "audit_entries", ["at", "id"])
    _execute(*_AUDIT_IS_APPEND_ONLY)


def _extend_keys() -> None:
    # Until now a key could do all there was: what a developer may.
    rights = sa.text("'{read,generate,gradients,tune,data}'")
    op.add_column("api_keys", sa.Column("project_id", sa.String))
    op.add_column("api_keys", sa.Column("kind", sa.String, nullable=False, server_default="service"))
    op.add_column("api_keys", sa.Column("scopes", sa.ARRAY(sa.String), nullable=False, server_default=rights))
    op.add_column("api_keys", sa.Column("is_account_wide", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("api_keys", sa.Column("created_by", sa.String))
    op.add_column("api_keys", sa.Column("replaced_by", sa.String))
    op.execute(
        "UPDATE api_keys SET project_id = projects.id FROM projects "
        "WHERE projects.account_id = api_keys.account_id AND projects.is_default"
    )
    op.alter_column("api_keys", "project_id", nullable=False)
    op.create_foreign_key("fk_api_keys_project_id", "api_keys", "projects", ["project_id"], ["id"])
    kinds = "kind in ('test', 'service', 'console', 'operator')"
    op.create_check_constraint("ck_api_keys_kind", "api_keys", kinds)
    is_console = sa.text("kind = 'console'")
    op.create_index(
        "uq_api_keys_console", "api_keys", ["project_id", "created_by"], unique=True, postgresql_where=is_console
    )
    _execute(*_PROJECT_OF_KEY)

"""What there was before projects is in default projects, and the previous release goes on working beside this one."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import hunmin_gateway.migrations
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hunmin_gateway.tables import Table
from hunmin_kit.data import Database
from hunmin_kit.data.migrations import Chain
from hunmin_kit.testing.postgres import fresh_database
from opentelemetry.trace import NoOpTracer
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

# The statements of the release before.
ACCOUNT = "INSERT INTO accounts (id, name) VALUES ('acct_{0}', 'account {0}')"
KEY = "INSERT INTO api_keys (id, account_id, name, prefix, digest) VALUES ('key_{0}', 'acct_{0}', 'k', 'h', '\\x0{0}')"
USAGE = (
    "INSERT INTO usage (id, request_id, account_id, key_id, model, endpoint, prompt_tokens, completion_tokens, status, "
    "started_at, duration_s) VALUES ('use_{0}', 'r', 'acct_{0}', 'key_{0}', 'm', 'e', 1, 1, 'succeeded', now(), 1)"
)


@pytest.fixture
async def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A database as the release before left it."""
    versions = Path(hunmin_gateway.migrations.__file__).parent / "versions"
    (tmp_path / "migrations_before" / "versions").mkdir(parents=True)
    for revision in ("0001", "0002", "0003", "0004"):
        (found,) = versions.glob(f"{revision}_*.py")
        shutil.copy(found, tmp_path / "migrations_before" / "versions")
    (tmp_path / "migrations_before" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    async with fresh_database() as url:
        await Chain("gateway", "migrations_before").upgrade(url)
        yield url


async def fetch(url: str, *statements: str) -> list[tuple]:
    """Run statements in one transaction; return what the last one finds."""
    database = Database(url, schema="gateway", tracer=NoOpTracer())
    try:
        async with database.session() as session:
            for statement in statements:
                found = await session.execute(text(statement))
            return [tuple(row) for row in found] if found.returns_rows else []
    finally:
        await database.close()


async def test_what_there_was_is_in_a_default_project(before: str) -> None:
    await fetch(before, *(statement.format(1) for statement in (ACCOUNT, KEY, USAGE)), ACCOUNT.format(2))
    await fetch(before, USAGE.format(3))  # whose key is gone
    await Chain("gateway", "hunmin_gateway.migrations").upgrade(before)
    projects = await fetch(before, "SELECT account_id, name, is_default, archived_at, id FROM projects ORDER BY 1")
    assert [row[:4] for row in projects] == [(f"acct_{number}", "default", True, None) for number in (1, 2)]
    assert await fetch(before, "SELECT project_id, kind, scopes, is_account_wide, created_by FROM api_keys") == [
        (projects[0][4], "service", ["read", "generate", "gradients", "tune", "data"], False, None)
    ]
    assert await fetch(before, "SELECT project_id FROM usage ORDER BY id") == [(projects[0][4],), (None,)]


async def test_the_release_before_still_makes_keys_and_writes_usage(before: str) -> None:
    await Chain("gateway", "hunmin_gateway.migrations").upgrade(before)
    await fetch(before, *(statement.format(3) for statement in (ACCOUNT, KEY, USAGE)))
    found = await fetch(
        before,
        "SELECT projects.is_default, projects.account_id, usage.project_id = projects.id "
        "FROM api_keys JOIN projects ON projects.id = api_keys.project_id JOIN usage ON usage.key_id = api_keys.id",
    )
    assert found == [(True, "acct_3", True)]


async def test_accounts_are_the_organization_of_their_name_unless_another_is(before: str) -> None:
    await fetch(before, ACCOUNT.format(1))
    await Chain("gateway", "hunmin_gateway.migrations").upgrade(before)
    await fetch(before, ACCOUNT.format(2))  # by the release before
    await fetch(before, "UPDATE accounts SET name = 'renamed' WHERE id = 'acct_1'")
    await fetch(before, "INSERT INTO accounts (id, name) VALUES ('acct_3', 'account 1')")
    found = await fetch(before, "SELECT name, organization FROM accounts ORDER BY id")
    assert found == [("renamed", "account 1"), ("account 2", "account 2"), ("account 1", None)]


async def test_tables_are_what_the_migrations_make(before: str) -> None:
    await Chain("gateway", "hunmin_gateway.migrations").upgrade(before)
    database = Database(before, schema="gateway", tracer=NoOpTracer())

    def is_ours(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or name in Table.metadata.tables  # the others are those of events

    def differences(connection: Connection) -> list[tuple]:
        return compare_metadata(MigrationContext.configure(connection, opts={"include_name": is_ours}), Table.metadata)

    async with database.session() as session:
        assert await (await session.connection()).run_sync(differences) == []
    await database.close()


ENTRY = "INSERT INTO audit_entries (id, actor_kind, action, subject_id) VALUES ('aud_1', 'cli', 'key.made', 'k')"


@pytest.mark.parametrize("change", ["UPDATE {} SET id = 'x'", "DELETE FROM {}", "TRUNCATE {}"])
@pytest.mark.parametrize(("table", "row"), [("audit_entries", ENTRY), ("usage", USAGE.format(1))])
async def test_nobody_changes_the_audit_or_the_ledger(before: str, table: str, row: str, change: str) -> None:
    await Chain("gateway", "hunmin_gateway.migrations").upgrade(before)
    await fetch(before, row)
    written = await fetch(before, f"TABLE {table}")
    with pytest.raises(DBAPIError, match=f"{table} is append-only"):
        await fetch(before, change.format(table))
    assert await fetch(before, f"TABLE {table}") == written
    assert len(written) == 1

"""Which database a process has."""

import sys

import pytest
from hunmin_kit.run import StartError
from hunmin_kit.run.plan import plan
from hunmin_kit.run.storage import database


async def test_a_start_without_any_postgresql_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hunmin_kit.data.embedded", None)  # as in images, which have no such package
    with pytest.raises(StartError, match="HUNMIN_DATABASE_URL is not set"):
        async with database(plan([], {})):
            pass


async def test_a_database_that_is_set_is_used_as_it_is() -> None:
    url = "postgresql://user:secret@example.org/hunmin"
    async with database(plan([], {"HUNMIN_DATABASE_URL": url})) as found:
        assert found == url

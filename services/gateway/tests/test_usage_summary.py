"""Usage added up, and as a table: both agree with the rows."""

import csv
import io
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hunmin_contracts.usage import Outcome
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.studio import usage as usage_api
from hunmin_gateway.tables import Account
from hunmin_gateway.usage.ledger import UsageLedger
from hunmin_gateway.usage.record import UsageRecord
from sqlalchemy import select

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/studio/v1/usage/summary"
DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)
COUNTS = ("prompt_tokens", "completion_tokens", "backward_tokens")
OUTCOMES = [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED]


async def rows(studio, count: int) -> list[UsageRecord]:
    """Write rows over three days, three keys and two models, with every outcome."""
    ledger = UsageLedger(studio.parts.database)
    written = [
        UsageRecord(
            id=f"use_{studio.account_id}_{number:05}",
            request_id=f"req_{number}",
            account_id=studio.account_id,
            project_id=f"proj_{number % 2}",
            key_id=f"key_{number % 3}",
            model=f"model {number % 2}",
            endpoint="/v1/completions",
            prompt_tokens=number,
            completion_tokens=2 * number,
            backward_tokens=3 * number,
            status=OUTCOMES[number % 5 % 3],
            error_code=None,
            started_at=DAY + timedelta(hours=11 * number % 72, seconds=number),
            duration_s=0.5,
        )
        for number in range(count)
    ]
    for record in written:
        await ledger.settle(record)
    return written


def everything() -> dict[str, str]:
    return {"since": "2026-01-01T00:00:00Z", "until": "2027-01-01T00:00:00Z"}


class TestSummary:
    @pytest.mark.parametrize(
        "by", [["day"], ["project"], ["key"], ["model"], ["key", "day"], ["model", "day", "project", "key"], None]
    )
    async def test_adds_up_to_the_rows(self, studio, by):
        records = await rows(studio, 40)
        query = everything() if by is None else everything() | {"by": by}
        groups = (await studio.http.get(PATH, params=query)).json()["data"]
        by = by or ["day", "key", "model"]
        expected: dict[tuple, list[UsageRecord]] = {}
        for record in records:
            key = (
                record.started_at.date().isoformat() if "day" in by else None,
                record.project_id if "project" in by else None,
                record.key_id if "key" in by else None,
                record.model if "model" in by else None,
            )
            expected.setdefault(key, []).append(record)
        found = {tuple(group[name] for name in ("day", "project_id", "key_id", "model")): group for group in groups}
        assert found.keys() == expected.keys()
        assert len(found) == len(groups)
        for key, group in found.items():
            assert group["requests"] == len(expected[key])
            for outcome in OUTCOMES:
                assert group[outcome] == sum(record.status is outcome for record in expected[key])
            for count in COUNTS:
                assert group[count] == sum(getattr(record, count) for record in expected[key])
        if "day" in by:
            assert [group["day"] for group in groups] == sorted((group["day"] for group in groups), reverse=True)

    async def test_begins_and_ends_where_it_is_told_to(self, studio):
        await rows(studio, 40)
        query = {"by": "day", "since": "2026-03-02T00:00:00Z", "until": "2026-03-03T09:00:00+09:00"}
        (group,) = (await studio.http.get(PATH, params=query)).json()["data"]
        assert group["day"] == "2026-03-02"

    async def test_is_of_the_last_thirty_days_unless_told_otherwise(self, studio):
        await studio.client.completions.create(model="team/parrot", prompt="가", max_tokens=2)
        await rows(studio, 3)
        summary = (await studio.http.get(PATH)).json()
        assert [group["prompt_tokens"] for group in summary["data"]] == [1]
        begins, ends = (datetime.fromisoformat(summary[name]) for name in ("since", "until"))
        assert ends - begins == timedelta(days=30)

    async def test_too_large_for_one_answer_is_refused(self, studio, monkeypatch):
        await rows(studio, 10)
        monkeypatch.setattr(usage_api, "MAX_GROUPS", 2)
        response = await studio.http.get(PATH, params=everything())
        assert (response.status_code, response.json()["details"]["param"]) == (400, "since")
        assert (await studio.http.get(PATH, params=everything() | {"by": "model"})).status_code == 200

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            ({"by": "hour"}, "by.0"),
            ({"since": "yesterday"}, "since"),
            ({"until": "0001-01-01T00:00:00+14:00"}, "until"),
            ({"until": "2026"}, "until"),  # not 33 minutes after 1970 began
            ({"typo": "1"}, "typo"),
        ],
    )
    async def test_refuses_what_it_does_not_know(self, studio, query, param):
        response = await studio.http.get(PATH, params=query)
        assert (response.status_code, response.json()["details"]["param"]) == (400, param)

    async def test_of_a_time_before_all_time_is_empty(self, studio):
        assert (await studio.http.get(PATH, params={"until": "0001-01-02T00:00:00Z"})).json()["data"] == []


class TestTable:
    async def table(self, studio, **query: str) -> list[dict[str, str]]:
        response = await studio.http.get("/studio/v1/usage.csv", params=query)
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/csv; charset=utf-8"
        return list(csv.DictReader(io.StringIO(response.text)))

    async def test_has_no_cell_that_a_spreadsheet_computes(self, studio):
        body = {"model": '=HYPERLINK("http://evil")', "prompt": "가"}
        assert (await studio.http.post("/v1/completions", json=body)).status_code == 404
        (row,) = await self.table(studio)
        assert row["model"] == "'" + body["model"]

    async def test_is_the_rows_page_by_page(self, studio, monkeypatch):
        monkeypatch.setattr(usage_api, "_TABLE_PAGE", 7)
        for count in (0, 7, 20):  # none, a whole page, some and a part
            await rows(studio, count)
            listed = await studio.usage(limit="200")
            found = await self.table(studio)
            assert len(found) == len(listed)
            assert found == [
                {name: "" if value is None else str(value) for name, value in row.items()} for row in listed
            ]

    async def test_holds_what_was_started_in_the_time_that_is_asked_for(self, studio):
        await rows(studio, 20)
        found = await self.table(studio, since="2026-03-02T00:00:00Z", until="2026-03-03T00:00:00Z")
        assert found
        assert all(row["started_at"].startswith("2026-03-02") for row in found)

    async def test_is_an_account_s_own(self, studio):
        await rows(studio, 3)
        async with studio.parts.database.session() as session:
            account = await session.scalar(select(Account.name).where(Account.id == studio.account_id))
            other, _ = await KeyRing(session, pepper=studio.parts.pepper).create(f"another {account}", "test")
        async with httpx.AsyncClient(base_url=studio.url, headers={"Authorization": f"Bearer {other}"}) as http:
            assert len((await http.get("/studio/v1/usage.csv")).text.splitlines()) == 1
            assert (await http.get(PATH, params=everything())).json()["data"] == []

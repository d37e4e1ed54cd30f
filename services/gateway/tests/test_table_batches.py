"""A template over the rows of a table, by the Studio API, before the real tuning service that keeps the tables."""

import asyncio
import csv
import io
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hunmin_contracts.errors import HunminError
from hunmin_gateway.batches.filling import Template
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.keys.text import new_key
from hunmin_gateway.parts import parts_of_app
from hunmin_gateway.service import SERVICE
from hunmin_kit.testing import Running, running
from hunmin_tuning.service import SERVICE as TUNING

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "team/parrot"
WITHIN_S = 30
ROWS = 'name,영화 평\n가,"나,다"\n라,마\n'
ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass
class Desk:
    """The API as one key sees it."""

    http: httpx.AsyncClient

    async def create(self, rows: bytes | str | None = ROWS, **fields: Any) -> httpx.Response:
        form = {"template": "{name}: {영화 평}", "model": MODEL, "parameters": '{"max_tokens": 5}'} | fields
        texts = {name: (None, value) for name, value in form.items() if value is not None}
        files = {} if rows is None else {"file": ("평.csv", rows)}
        return await self.http.post("/studio/v1/batches", files=texts | files)

    async def run(self, *rows: Any, **fields: Any) -> dict[str, Any]:
        created = await self.create(*rows, **fields)
        assert created.status_code == 201, created.text
        return await self.until(created.json()["id"])

    async def until(self, batch_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + WITHIN_S
        while (batch := (await self.http.get(f"/studio/v1/batches/{batch_id}")).json())["status"] not in ENDED:
            assert time.monotonic() < deadline, batch
            await asyncio.sleep(0.05)
        return batch

    async def table(self, batch: dict[str, Any]) -> list[dict[str, str]]:
        response = await self.http.get(f"/studio/v1/batches/{batch['id']}/results.csv")
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "text/csv; charset=utf-8"
        return list(csv.DictReader(io.StringIO(response.content.decode("utf-8-sig"))))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def services(neighbours) -> AsyncIterator[Running]:
    others = [service for service in neighbours if service.name != "tuning"]
    async with running(SERVICE, TUNING, *others, env={"HUNMIN_TUNING_SLOTS": "0"}, network=True) as up:
        yield up


@pytest_asyncio.fixture(loop_scope="session")
async def desk(services, tls, parrot) -> AsyncIterator[Desk]:
    parts = parts_of_app(services.app("gateway"))
    async with parts.database.session() as session:
        key, _ = await KeyRing(session, pepper=parts.pepper).create(f"account {new_key()}", "test")
    parrot.requests.clear()
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=services.url("gateway"), headers=headers, timeout=20, verify=tls) as http:
        yield Desk(http)


class TestRun:
    @pytest.mark.parametrize("encoding", ["utf-8", "cp949"])
    async def test_every_row_gets_its_completion(self, desk, parrot, encoding: str):
        batch = await desk.run(ROWS.encode(encoding))
        assert (batch["status"], batch["total"], batch["completed"], batch["failed"]) == ("completed", 2, 2, 0)
        assert batch["ended_at"] is not None
        assert sorted(request.prompt for request in parrot.requests) == ["가: 나,다", "라: 마"]
        assert await desk.table(batch) == [
            {"name": "가", "영화 평": "나,다", "completion": "가: 나,", "error": ""},
            {"name": "라", "영화 평": "마", "completion": "라: 마라", "error": ""},
        ]

    async def test_as_a_chat(self, desk, parrot):
        batch = await desk.run(endpoint="/v1/chat/completions", system="짧게", template="{name}")
        assert batch["completed"] == 2
        assert [message.role for message in parrot.requests[0].prompt] == ["system", "user"]
        assert [row["completion"] for row in await desk.table(batch)] == ["syste", "syste"]

    async def test_rows_that_fail_say_why(self, desk):
        batch = await desk.run("completion\n" + "긴" * 80 + "\n나\n", template="{completion}")
        assert (batch["completed"], batch["failed"]) == (1, 1)
        long, short = await desk.table(batch)
        assert (long["completion_"], short["completion_"], short["error"]) == ("", "나나나나나", "")
        assert "the model holds" in long["error"]

    async def test_of_a_dataset_that_is_there(self, desk):
        kept = await desk.http.post(
            "/studio/v1/datasets", data={"name": "reviews"}, files={"file": ("reviews.csv", ROWS)}
        )
        batch = await desk.run(None, dataset="reviews")
        assert batch["dataset_id"] == kept.json()["id"]
        assert len(await desk.table(batch)) == 2

    async def test_more_rows_than_are_read_at_a_time(self, desk, monkeypatch):
        monkeypatch.setattr("hunmin_gateway.studio.batch_rows._PAGE", 4)
        batch = await desk.run("n\n" + "".join(f"{n}\n" for n in range(30)), template="{n}")
        assert [row["n"] for row in await desk.table(batch)] == [str(n) for n in range(30)]
        assert [row["completion"] for row in await desk.table(batch)] == [(str(n) * 5)[:5] for n in range(30)]


class TestRefusal:
    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"template": "{nobody}"}, "template"),
            ({"template": "없음"}, "template"),
            ({"template": "{name"}, "template"),
            ({"template": "{name:>3}"}, "template"),
            ({"parameters": "[]"}, "parameters"),
            ({"parameters": "{"}, "parameters"),
            ({"parameters": '{"user": "\\ud800"}'}, "parameters"),
            ({"parameters": '{"prompt": "a"}'}, "parameters"),
            ({"parameters": '{"max_tokens": -1}'}, "parameters.max_tokens"),
            ({"parameters": '{"stream": true}'}, "parameters.stream"),
            ({"system": "짧게"}, "system"),
            ({"rows": None}, "file"),
            ({"dataset": "reviews"}, "file"),
            ({"rows": "a,b\n1\n"}, "file"),
            ({"model": None}, "model"),
            ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ],
    )
    async def test_names_the_field(self, desk, fields: dict[str, Any], param: str):
        refused = await desk.create(**fields)
        assert (refused.status_code, refused.json()["details"].get("param")) == (400, param), refused.text

    async def test_of_what_would_fill_the_memory_comes_before_it_is_made(self, desk, monkeypatch):
        monkeypatch.setattr(Template, "fill", lambda *_: pytest.fail("it was filled"))
        refused = await desk.create(rows=f"a\n{'가' * 30_000}\n", template="{a}" * 600)
        assert (refused.status_code, refused.json()["details"]["param"]) == (413, "template"), refused.text
        assert "Line 2: the filled template has more than" in refused.json()["detail"]

    async def test_of_too_much_comes_with_the_first_row_that_is(self, desk, monkeypatch):
        monkeypatch.setattr("hunmin_gateway.studio.batch_rows.MAX_FILE_BYTES", 1000)
        refused = await desk.create(rows="a\n" + "가나다라\n" * 100, template="{a}")
        assert (refused.status_code, "1,000 bytes together" in refused.json()["detail"]) == (413, True), refused.text

    async def test_of_a_table_that_is_not_there(self, desk):
        slow = await desk.create(template="!slow{name}", parameters='{"max_tokens": 200}')
        batch = slow.json()
        assert (await desk.http.get(f"/studio/v1/batches/{batch['id']}/results.csv")).status_code == 409
        cancelled = await desk.http.post(f"/studio/v1/batches/{batch['id']}/cancel")
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelling")
        batch = await desk.until(batch["id"])
        assert batch["status"] == "cancelled"
        assert {row["completion"] for row in await desk.table(batch)} == {""}
        lines = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"model": MODEL, "prompt": "가"}}
        file = await desk.http.post(
            "/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", json.dumps(lines))}
        )
        asked = {"input_file_id": file.json()["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
        other = (await desk.http.post("/v1/batches", json=asked)).json()
        assert (await desk.http.get(f"/studio/v1/batches/{other['id']}/results.csv")).status_code == 404


class TestFollow:
    async def test_tells_every_state_until_it_ends(self, desk):
        created = (await desk.create()).json()
        told = []
        async with desk.http.stream("GET", f"/studio/v1/batches/{created['id']}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    told.append(json.loads(line.removeprefix("data: ")))
        assert told[-1]["status"] == "completed"
        assert told[-1] == (await desk.http.get(f"/studio/v1/batches/{created['id']}")).json()
        completed = [one["completed"] for one in told]
        assert completed == sorted(completed)
        assert (await desk.http.get("/studio/v1/batches/batch_0/events")).status_code == 404

    async def test_lists_newest_first(self, desk):
        made = [(await desk.run())["id"] for _ in range(3)]
        first = (await desk.http.get("/studio/v1/batches", params={"limit": 2})).json()
        assert [one["id"] for one in first["data"]] == made[:0:-1]
        cursor = first["next_cursor"]
        rest = (await desk.http.get("/studio/v1/batches", params={"cursor": cursor})).json()
        assert ([one["id"] for one in rest["data"]], rest["next_cursor"]) == (made[:1], None)
        assert (await desk.http.get("/studio/v1/batches", params={"cursor": "batch_0"})).status_code == 400


async def test_template_puts_values_as_they_are():
    template = Template.of("{{{a}}} {a b}!", ["a", "a b"])
    assert template.fill({"a": "{b}", "a b": "}{"}) == "{{b}} }{!"
    with pytest.raises(HunminError, match=r"no column 'a\.b'"):
        Template.of("{a.b}", ["a"])

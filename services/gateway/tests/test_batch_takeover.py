"""A gateway that is killed in the middle of a batch: another makes its lines, and each has one result."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio
from hunmin_gateway.keys.ring import KeyRing
from hunmin_kit.data import Database
from hunmin_kit.data.migrations import Chain
from hunmin_kit.testing import running
from hunmin_kit.testing.postgres import fresh_database
from hunmin_kit.testing.processes import ServiceProcess, service_process
from opentelemetry.trace import NoOpTracer
from sqlalchemy import text

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "team/parrot"
PEPPER = "a pepper of thirty-two characters"
AT_ONCE = 3  # lines of a gateway
LINES = 12
WITHIN_S = 60


@dataclass
class Gateways:
    """Two gateway processes on one database, as the key of one account sees them."""

    processes: list[ServiceProcess]
    database: Database
    key: str

    def http(self, number: int) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(base_url=self.processes[number].url, headers=headers, timeout=20, trust_env=False)

    async def fetch(self, statement: str) -> list:
        async with self.database.session() as session:
            return list((await session.execute(text(statement))).all())


@pytest_asyncio.fixture(loop_scope="session")
async def gateways(neighbours, tmp_path) -> AsyncIterator[Gateways]:
    async with fresh_database() as url, running(*neighbours, network=True) as up:
        await Chain("gateway", "hunmin_gateway.migrations").upgrade(url)
        database = Database(url, schema="gateway", tracer=NoOpTracer())
        async with database.session() as session:
            key, _ = await KeyRing(session, pepper=PEPPER.encode()).create("night", "key")
        environ = {
            "HUNMIN_DATABASE_URL": url,
            "HUNMIN_HOME": str(tmp_path),
            "HUNMIN_GATEWAY_KEY_PEPPER": PEPPER,
            "HUNMIN_GATEWAY_BATCH_CONCURRENCY": str(AT_ONCE),
            "HUNMIN_GATEWAY_BATCH_LEASE_S": "2",
            "HUNMIN_LOG_LEVEL": "WARNING",
        } | {f"HUNMIN_{name.upper()}_URL": up.url(name) for name in ("generation", "tokenizer", "tuning")}
        async with (
            service_process("gateway", environ, tmp_path / "0.log") as first,
            service_process("gateway", environ, tmp_path / "1.log") as second,
        ):
            yield Gateways([first, second], database, key)
        await database.close()


async def test_lines_of_a_gateway_that_is_killed_are_made_by_another(gateways: Gateways, parrot) -> None:
    parrot.metered.clear()
    body = {"model": MODEL, "prompt": "!slow", "max_tokens": 150}
    lines = [{"custom_id": f"line-{n}", "method": "POST", "url": "/v1/completions", "body": body} for n in range(LINES)]
    content = "".join(json.dumps(one) + "\n" for one in lines)
    async with gateways.http(1) as http:
        sent = await http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)})
        asked = {"input_file_id": sent.json()["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
        batch = (await http.post("/v1/batches", json=asked)).json()
        deadline = time.monotonic() + WITHIN_S
        while parrot.running < 2 * AT_ONCE:  # both are at it
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        await gateways.processes[0].kill()
        while batch["status"] != "completed":
            assert time.monotonic() < deadline, batch
            await asyncio.sleep(0.1)
            batch = (await http.get(f"/v1/batches/{batch['id']}")).json()
        assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
        output = (await http.get(f"/v1/files/{batch['output_file_id']}/content")).text
        assert batch["error_file_id"] is None
    answers = [json.loads(one) for one in output.splitlines()]
    assert [one["custom_id"] for one in answers] == [one["custom_id"] for one in lines]
    rows = await gateways.fetch(
        "SELECT request_id, prompt_tokens + completion_tokens, status, batch_id FROM usage ORDER BY request_id"
    )
    assert Counter(row[0] for row in rows).most_common(1)[0][1] == 1
    made = {row[0]: row[1] for row in rows}
    assert {one["response"]["request_id"] for one in answers} <= made.keys()
    assert {(row[2], row[3]) for row in rows} == {("succeeded", batch["id"])}
    assert all(tokens == parrot.metered[request_id] == 155 for request_id, tokens in made.items())
    # Those of the gateway that was killed were begun twice; nobody but generation knows what they had used.
    assert len(parrot.metered) == LINES + AT_ONCE
    assert len(made) == LINES
    assert await gateways.fetch("SELECT 1 FROM batch_lines") == []

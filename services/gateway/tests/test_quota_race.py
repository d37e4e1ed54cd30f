"""The quota race: fifty calls at once by ten keys of one account, through two gateway processes, on a budget for ten.

Some are cancelled, some fail, some are cut at a random byte. A trigger watches every state that a counter is ever in,
and in the end each call that did not fail has cost to the token what the model had made for it, cut or not.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from hunmin_contracts.ids import new_request_id
from hunmin_contracts.quotas import LimitName, Purpose
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.quotas.limits import Limits
from hunmin_kit.data import Database
from hunmin_kit.data.migrations import Chain
from hunmin_kit.testing import running
from hunmin_kit.testing.postgres import fresh_database
from hunmin_kit.testing.processes import service_process
from opentelemetry.trace import NoOpTracer
from sqlalchemy import text

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROUNDS = int(os.environ.get("TEST_QUOTA_ROUNDS", "100"))
MODEL = "team/parrot"
PEPPER = "a pepper of thirty-two characters"
COST = 12  # tokens of every call: those of its prompt, and max_tokens
BUDGET = 10
CALLS = 50
PLAIN, SLOW, BREAK, EARLY = "가나다라", "!slow", "!break", "!early"
LEASE_S = 5  # also how long room is held for a call that was cut just before the model would have heard of it
SETTLED_WITHIN_S = 30
WATCH = """
CREATE FUNCTION watch_quota() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.used + NEW.reserved > (SELECT value FROM quota_limits WHERE id = NEW.limit_id) THEN
        RAISE EXCEPTION 'a quota is exceeded';
    END IF;
    RETURN NULL;
END $$
"""


@dataclass
class Gateways:
    """Two gateway processes on one database."""

    urls: list[str]
    logs: list[Path]
    database: Database

    async def account(self, name: str) -> tuple[list[str], str]:
        """Return ten keys of a new account with a budget for ten calls, and its id."""
        async with self.database.session() as session:
            ring, limits = KeyRing(session, pepper=PEPPER.encode()), Limits(session)
            keys = [(await ring.create(name, f"key {number}"))[0] for number in range(10)]
            await limits.set(name, LimitName.TOKENS_PER_MONTH, COST * BUDGET)
            await limits.set(name, LimitName.TOKENS_PER_MONTH, COST * BUDGET, model=MODEL, purpose=Purpose.COMPLETION)
            await limits.set(name, LimitName.TOKENS_PER_MINUTE, COST * BUDGET)
            await limits.set(name, LimitName.CONCURRENT_REQUESTS, BUDGET)
            await limits.set(name, LimitName.REQUESTS_PER_MINUTE, 1000)
            account_id = await session.scalar(text("SELECT id FROM accounts WHERE name = :name"), {"name": name})
        return keys, account_id

    async def rows(self, statement: str, account_id: str) -> list:
        """Return what `statement` finds of an account."""
        async with self.database.session() as session:
            return list((await session.execute(text(statement), {"account_id": account_id})).all())


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateways(neighbours, tmp_path_factory) -> AsyncIterator[Gateways]:
    folder = tmp_path_factory.mktemp("gateways")
    async with (
        fresh_database() as url,
        running(*neighbours, network=True, env={"HUNMIN_DATABASE_URL": url}) as up,
    ):
        await Chain("gateway", "hunmin_gateway.migrations").upgrade(url)
        database = Database(url, schema="gateway", tracer=NoOpTracer())
        async with database.session() as session:
            await session.execute(text(WATCH))
            watching = "CREATE TRIGGER watch AFTER INSERT OR UPDATE ON quota_counters FOR EACH ROW"
            await session.execute(text(f"{watching} EXECUTE FUNCTION watch_quota()"))
        environ = {
            "HUNMIN_DATABASE_URL": url,
            "HUNMIN_HOME": str(folder),
            "HUNMIN_GATEWAY_KEY_PEPPER": PEPPER,
            "HUNMIN_GATEWAY_QUOTA_LEASE_S": str(LEASE_S),
            "HUNMIN_LOG_FORMAT": "json",
            "HUNMIN_LOG_LEVEL": "WARNING",
        } | {f"HUNMIN_{name.upper()}_URL": up.url(name) for name in ("generation", "tokenizer", "tuning")}
        async with (
            service_process("gateway", environ, folder / "0.log") as first,
            service_process("gateway", environ, folder / "1.log") as second,
        ):
            yield Gateways([first.url, second.url], [first.log, second.log], database)
        await database.close()


class Round:
    """The calls of one account."""

    def __init__(self, gateways: Gateways, http: httpx.AsyncClient, seed: int, keys: list[str]) -> None:
        self.dice = random.Random(seed)  # noqa: S311  # a seeded test
        self._gateways = gateways
        self._http = http
        self._keys = keys
        self._count = 0

    def _asked(self, prompt: str, *, stream: bool = False) -> dict:
        self._count += 1
        return {
            "url": f"{self._gateways.urls[self._count % 2]}/v1/completions",
            "json": {"model": MODEL, "prompt": prompt, "max_tokens": COST - len(prompt), "stream": stream},
            "headers": {
                "Authorization": f"Bearer {self._keys[self._count // 2 % len(self._keys)]}",
                "x-request-id": new_request_id(),
            },
        }

    async def whole(self, prompt: str = PLAIN) -> int:
        """Return the status of an answer in one body."""
        response = await self._http.post(**self._asked(prompt))
        if response.status_code == 429:
            assert response.json()["error"]["code"] == "rate_limit_exceeded", response.text
            assert int(response.headers["retry-after"]) >= 1
        return response.status_code

    async def call(self) -> None:
        """Make a call of some kind, and end it in some way."""
        kind = self.dice.choice(["whole", "whole", "stream", "cancelled", "failing", "cut", "cut"])
        await asyncio.sleep(self.dice.random() * 0.02)
        if kind == "whole":
            assert await self.whole(self.dice.choice([PLAIN, SLOW])) in (200, 429)
        elif kind == "failing":
            assert await self.whole(self.dice.choice([BREAK, EARLY])) in (503, 429)
        elif kind == "cancelled":
            asking = asyncio.create_task(self._http.post(**self._asked(SLOW)))
            await asyncio.sleep(self.dice.random() * 0.1)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        else:
            limit = 10_000 if kind == "stream" else self.dice.randrange(2000)
            async with self._http.stream("POST", **self._asked(SLOW, stream=True)) as response:
                assert response.status_code in (200, 429)
                read = 0
                async for piece in response.aiter_raw():
                    read += len(piece)
                    if read > limit:
                        break


async def settled(gateways: Gateways, account_id: str) -> None:
    """Wait until nothing of the account runs any more: three looks in a row see nothing reserved, and equal usage."""
    seen: list[int] = []
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while len(seen) < 3 or len(set(seen[-3:])) > 1 or seen[-1] < 0:
        assert time.monotonic() < deadline, "calls are not settled"
        reserved = await gateways.rows(RESERVATIONS, account_id)
        rows = await gateways.rows("SELECT count(*) FROM usage WHERE account_id = :account_id", account_id)
        seen.append(-1 if reserved[0][0] else rows[0][0])
        await asyncio.sleep(0.03)


RESERVATIONS = """
SELECT count(*) FROM quota_reservations JOIN quota_limits ON quota_limits.id = limit_id
WHERE account_id = :account_id AND swept_at IS NULL
"""
TAKEN = """
SELECT name, value, coalesce(sum(used), 0)::bigint AS used, coalesce(sum(reserved), 0)::bigint AS reserved
FROM quota_limits LEFT JOIN quota_counters ON limit_id = id WHERE account_id = :account_id GROUP BY id
"""
USAGE = """
SELECT request_id, min(status) AS status, count(corrects) AS corrections,
       sum(prompt_tokens + completion_tokens)::bigint AS tokens
FROM usage WHERE account_id = :account_id GROUP BY request_id
"""
NEXT_MONTH = """
UPDATE quota_counters SET begins_at = begins_at - interval '1 month' FROM quota_limits
WHERE id = limit_id AND account_id = :account_id AND ends_at IS NOT NULL RETURNING id
"""


async def used(gateways: Gateways, account_id: str) -> int:
    """Return the tokens that are taken; nothing must be reserved, and all limits agree with the rows of usage."""
    rows = await gateways.rows(USAGE, account_id)
    costly = [row for row in rows if row.status != "failed"]
    # A call that was cut before anything was reserved for it has a row, of no tokens, and has taken no request.
    begun = [row for row in costly if row.tokens]
    tokens = sum(row.tokens for row in rows)
    expected = {
        LimitName.TOKENS_PER_MONTH: [tokens],
        LimitName.TOKENS_PER_MINUTE: [tokens],
        LimitName.REQUESTS_PER_MINUTE: range(len(begun), len(costly) + 1),
        LimitName.CONCURRENT_REQUESTS: [0],
    }
    for name, value, taken, reserved in await gateways.rows(TAKEN, account_id):
        assert taken in expected[name], name
        assert (reserved, taken <= value) == (0, True), name
    return tokens


@pytest.mark.timeout(120 + 15 * ROUNDS)
async def test_never_admits_more_than_the_budget_and_never_loses_any_of_it(gateways, parrot):
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with httpx.AsyncClient(timeout=30, trust_env=False, limits=limits) as http:
        outcomes: dict[str, int] = {}
        corrected = 0
        for seed in range(ROUNDS):
            keys, account_id = await gateways.account(f"round {seed}")
            race = Round(gateways, http, seed, keys)
            await asyncio.gather(*(race.call() for _ in range(CALLS)))
            await settled(gateways, account_id)
            taken = await used(gateways, account_id)
            for row in await gateways.rows(USAGE, account_id):
                outcomes[row.status] = outcomes.get(row.status, 0) + 1
                metered = parrot.metered.get(row.request_id, 0)
                if row.status == "succeeded":
                    assert row.tokens == metered == COST
                elif row.status == "cancelled":
                    assert row.tokens == metered <= COST
                    corrected += row.corrections
            # All that is left can be had at once, and no more.
            left = (COST * BUDGET - taken) // COST
            assert await asyncio.gather(*(race.whole() for _ in range(left))) == [200] * left
            assert await race.whole() == 429
            # In the next month there is room for the whole budget at once.
            await gateways.rows(NEXT_MONTH, account_id)
            assert await asyncio.gather(*(race.whole() for _ in range(BUDGET))) == [200] * BUDGET
            assert await race.whole() == 429
    assert {"succeeded", "failed", "cancelled"} <= outcomes.keys(), outcomes
    assert corrected or ROUNDS < 10, outcomes
    for log in gateways.logs:
        assert '"level": "error"' not in log.read_text(), log.read_text()[-3000:]

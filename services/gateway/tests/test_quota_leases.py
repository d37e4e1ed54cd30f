"""Reservations over their life: swept, renewed, settled late, settled twice, cancelled midway, all at once."""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import GenerateRequest
from hunmin_contracts.ids import ApiKeyId, ProjectId, RequestId, UsageId
from hunmin_contracts.quotas import LimitName
from hunmin_contracts.tenancy import SCOPES, KeyKind, Role
from hunmin_contracts.usage import Outcome
from hunmin_gateway.exchange import Exchange
from hunmin_gateway.pipeline import Pipeline
from hunmin_gateway.principal import Principal
from hunmin_gateway.quotas.limits import Limits
from hunmin_gateway.quotas.quotas import Quotas
from hunmin_gateway.tables import Account, QuotaLimit
from hunmin_gateway.usage.ledger import UsageLedger
from hunmin_gateway.usage.record import ReservedFor, UsageRecord
from hunmin_kit.data import Quick
from sqlalchemy import select, text

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "team/parrot"
PROMPT, MAX_TOKENS = "가나다", 5
COST = len(PROMPT) + MAX_TOKENS
SHORT_S = 0.05  # a lease that is over soon
LONG_S = 60.0


class Desk:
    """A gateway's quotas and ledger, for one account."""

    def __init__(self, studio, *, lease_s: float = LONG_S) -> None:
        self._studio = studio
        self.quotas = Quotas(studio.parts.database, studio.parts.generation, lease_s=lease_s)
        self.ledger = UsageLedger(studio.parts.database)

    def exchange(self, max_tokens: int = MAX_TOKENS) -> Exchange[GenerateRequest]:
        account_id = self._studio.account_id
        request = GenerateRequest(account_id=account_id, model=MODEL, prompt=PROMPT, max_tokens=max_tokens)
        principal = Principal(
            account_id=account_id,
            project_id=ProjectId("proj_1"),
            key_id=ApiKeyId("key_1"),
            user_id=None,
            role=Role.DEVELOPER,
            kind=KeyKind.SERVICE,
            scopes=SCOPES[Role.DEVELOPER],
            is_account_wide=False,
            is_operator=False,
            has_limits=True,
        )
        return Exchange(RequestId("req_1"), principal, "/v1/completions", MODEL, [request])

    def record(
        self,
        exchange: Exchange,
        *,
        tokens: int = 4,
        status: Outcome = Outcome.SUCCEEDED,
        is_awaited: bool = False,
    ) -> UsageRecord:
        model = exchange.reserved_model
        return UsageRecord(
            id=exchange.id,
            request_id=exchange.request_id,
            account_id=exchange.principal.account_id,
            project_id=exchange.principal.project_id,
            key_id=exchange.principal.key_id,
            model=MODEL,
            endpoint=exchange.endpoint,
            prompt_tokens=tokens,
            completion_tokens=0,
            backward_tokens=0,
            status=status,
            error_code=None,
            started_at=datetime.now(UTC),
            duration_s=0.1,
            reserved_for=None if model is None else ReservedFor(model, exchange.purpose),
            is_awaited=is_awaited,
        )

    async def cut(self, exchange: Exchange, *, tokens: int = 4) -> UsageRecord:
        """Settle it with what was known when its client left; return the row that adds two tokens to that."""
        row = self.record(exchange, tokens=tokens, status=Outcome.CANCELLED, is_awaited=True)
        await self.ledger.settle(row)
        return replace(
            row, id=UsageId(f"{row.id}_c"), corrects=row.id, prompt_tokens=2, reserved_for=None, is_awaited=False
        )

    async def reserve(self, exchange: Exchange) -> None:
        """Reserve, and die: nothing is renewed or settled."""
        async with self.quotas.reserved(exchange):
            pass


async def limit(studio, **values: int) -> None:
    async with studio.parts.database.session() as session:
        account = await session.scalar(select(Account.name).where(Account.id == studio.account_id))
        for name, value in values.items():
            await Limits(session).set(account, LimitName(name), value)


async def taken(studio) -> tuple[int, int]:
    """Return what is used and reserved of the account's tokens of this month."""
    quotas = (await studio.http.get("/studio/v1/quotas")).json()["data"]
    return next((quota["used"], quota["reserved"]) for quota in quotas if quota["name"] == "tokens_per_month")


class TestLease:
    async def test_that_runs_out_gives_back_what_a_dead_gateway_reserved(self, studio):
        await limit(studio, tokens_per_month=COST, concurrent_requests=1)
        dead, alive = Desk(studio, lease_s=SHORT_S), Desk(studio)
        await dead.reserve(dead.exchange())
        with pytest.raises(HunminError) as refused:
            await alive.reserve(alive.exchange())
        assert refused.value.code is ErrorCode.QUOTA_EXCEEDED
        await asyncio.sleep(2 * SHORT_S)
        for _ in range(2):
            await alive.quotas.sweep()
            assert await taken(studio) == (0, 0)
        await alive.reserve(alive.exchange())

    async def test_that_is_renewed_does_not_run_out(self, studio):
        await limit(studio, tokens_per_month=COST)
        desk = Desk(studio, lease_s=1.0)
        exchange = desk.exchange()
        async with desk.quotas.reserved(exchange):
            for _ in range(4):
                await asyncio.sleep(0.4)
                await desk.quotas.renew()
                await desk.quotas.sweep()
                assert await taken(studio) == (0, COST)
        await desk.ledger.settle(desk.record(exchange))
        assert await taken(studio) == (4, 0)

    async def test_is_renewed_and_swept_while_the_gateway_runs(self, studio):
        await limit(studio, tokens_per_month=2 * COST)
        desk = Desk(studio, lease_s=0.6)
        async with desk.quotas.kept(), desk.quotas.reserved(desk.exchange()):
            await desk.reserve(desk.exchange())
            assert await taken(studio) == (0, 2 * COST)
            await asyncio.sleep(1.8)
            assert await taken(studio) == (0, COST)


class TestSettlement:
    @pytest.mark.parametrize("status", Outcome)
    async def test_that_comes_late_counts_once_and_gives_back_nothing_twice(self, studio, status):
        await limit(studio, tokens_per_month=COST)
        dead, alive = Desk(studio, lease_s=SHORT_S), Desk(studio)
        late, other = dead.exchange(), alive.exchange()
        await dead.reserve(late)
        await asyncio.sleep(2 * SHORT_S)
        await alive.quotas.sweep()
        await alive.reserve(other)  # what was given back belongs to another now
        cost = 0 if status is Outcome.FAILED else 4
        for _ in range(2):
            await dead.ledger.settle(dead.record(late, status=status))
            assert await taken(studio) == (cost, COST)
        await alive.ledger.settle(alive.record(other))
        assert await taken(studio) == (cost + 4, 0)

    async def test_at_the_same_time_several_times_settles_once(self, studio):
        await limit(studio, tokens_per_month=100)
        desk = Desk(studio)
        exchange = desk.exchange()
        await desk.reserve(exchange)
        await asyncio.gather(*(desk.ledger.settle(desk.record(exchange)) for _ in range(5)))
        assert await taken(studio) == (4, 0)
        assert len(await studio.usage()) == 1

    async def test_of_what_was_never_reserved_counts_nothing(self, studio):
        desk = Desk(studio)
        await desk.ledger.settle(desk.record(desk.exchange()))
        await limit(studio, tokens_per_month=100)
        assert await taken(studio) == (0, 0)
        assert len(await studio.usage()) == 1

    async def test_outlives_the_limit(self, studio):
        await limit(studio, tokens_per_month=100)
        desk = Desk(studio)
        exchange = desk.exchange()
        await desk.reserve(exchange)
        async with studio.parts.database.session() as session:
            (listed,) = await Limits(session).list(studio.account_id)
            await Limits(session).remove(listed.quota.id)
        await desk.ledger.settle(desk.record(exchange))
        assert len(await studio.usage()) == 1

    async def test_whose_commit_is_not_heard_of_is_tried_again_and_settles_once(self, studio):
        await limit(studio, tokens_per_month=100)
        desk = Desk(studio)
        exchange = desk.exchange()
        await desk.reserve(exchange)
        await UsageLedger(UnheardDatabase(studio.parts.database)).settle(desk.record(exchange))
        assert await taken(studio) == (4, 0)

    async def test_of_a_reservation_that_the_database_has_lost_counts_all_the_same(self, studio):
        await limit(studio, tokens_per_month=100)
        desk = Desk(studio)
        exchange = desk.exchange()
        await desk.reserve(exchange)
        async with studio.parts.database.session() as session:
            await session.execute(text("DELETE FROM quota_reservations WHERE usage_id = :id"), {"id": exchange.id})
            of_account = "limit_id IN (SELECT id FROM quota_limits WHERE account_id = :id)"
            await session.execute(
                text(f"DELETE FROM quota_counters WHERE {of_account}"),  # noqa: S608  # a part of our own
                {"id": studio.account_id},
            )
        for _ in range(2):
            await desk.ledger.settle(desk.record(exchange))
        assert await taken(studio) == (4, 0)


class UnheardDatabase:
    """A database that is lost as it has committed for the first time."""

    def __init__(self, database) -> None:
        self._database = database
        self._is_lost = True

    @property
    def quick(self) -> "UnheardDatabase":
        return self

    async def fetch(self, statement: Quick, values: dict) -> list:
        rows = await self._database.quick.fetch(statement, values)
        if self._is_lost:
            self._is_lost = False
            raise HunminError(ErrorCode.UNAVAILABLE, "The database cannot be reached.")
        return rows


class LateDatabase:
    """A database whose commits arrive, but a while after they were sent, whoever has stopped to wait for them."""

    def __init__(self, database) -> None:
        self._database = database
        self.is_committing = asyncio.Event()

    @property
    def quick(self) -> "LateDatabase":
        return self

    async def fetch(self, statement: Quick, values: dict) -> list:
        return await asyncio.shield(asyncio.create_task(self._commit(statement, values)))

    async def _commit(self, statement: Quick, values: dict) -> list:
        self.is_committing.set()
        await asyncio.sleep(0.3)
        return await self._database.quick.fetch(statement, values)


class TestCancelled:
    async def test_as_its_reservation_is_committed_leaves_nothing_reserved(self, studio):
        await limit(studio, tokens_per_month=100)
        desk, database = Desk(studio), LateDatabase(studio.parts.database)
        pipeline = Pipeline(studio.parts.generation, desk.ledger, Quotas(database, studio.parts.generation))

        async def ask() -> None:
            async with pipeline.run(desk.exchange()):
                pytest.fail("it was let in")

        asking = asyncio.create_task(ask())
        await asyncio.wait_for(database.is_committing.wait(), 5)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0.5)
        assert await taken(studio) == (0, 0)
        assert [row["status"] for row in await studio.usage()] == ["cancelled"]

    async def test_holds_what_the_engine_may_still_tell_of_and_nothing_of_what_runs_at_a_time(self, studio):
        await limit(studio, tokens_per_month=COST + 4, concurrent_requests=1)
        desk = Desk(studio)
        await desk.reserve(left := desk.exchange())
        correction = await desk.cut(left)
        assert await taken(studio) == (4, COST - 4)
        with pytest.raises(HunminError, match="tokens_per_month"):
            await desk.reserve(desk.exchange())
        for _ in range(2):
            await desk.ledger.settle(correction)
            assert await taken(studio) == (6, 0)
        assert await reservations(studio) == 0

    async def test_gives_the_rest_back_where_the_engine_tells_the_same(self, studio):
        await limit(studio, tokens_per_month=COST + 4)
        desk = Desk(studio)
        await desk.reserve(left := desk.exchange())
        await desk.cut(left)
        for _ in range(2):
            await desk.ledger.release(left.id)
            assert await taken(studio) == (4, 0)
        assert await reservations(studio) == 0

    async def test_gives_it_back_with_its_lease_if_the_engine_tells_nothing_and_counts_what_it_tells_later(
        self, studio
    ):
        await limit(studio, tokens_per_month=COST + 4)
        desk = Desk(studio, lease_s=SHORT_S)
        await desk.reserve(left := desk.exchange())
        correction = await desk.cut(left)
        await asyncio.sleep(2 * SHORT_S)
        await desk.quotas.sweep()
        assert await taken(studio) == (4, 0)
        await desk.ledger.settle(correction)
        assert await taken(studio) == (6, 0)

    async def test_that_used_all_it_had_reserved_holds_nothing(self, studio):
        await limit(studio, tokens_per_month=COST, requests_per_minute=9)
        desk = Desk(studio)
        await desk.reserve(left := desk.exchange())
        await desk.cut(left, tokens=COST)
        assert await taken(studio) == (COST, 0)


class TestLocks:
    """Deadlocks are ruled out by an order, and each statement is looked at while it waits."""

    @pytest.mark.parametrize("statement", ["reserve", "settle", "sweep"])
    async def test_whoever_waits_for_a_counter_holds_none_behind_it(self, studio, statement):
        await limit(studio, tokens_per_month=100, tokens_per_minute=100, requests_per_minute=100)
        desk = Desk(studio, lease_s=SHORT_S if statement == "sweep" else LONG_S)
        await desk.reserve(held := desk.exchange())
        await asyncio.sleep(2 * SHORT_S)
        async with studio.parts.database.session() as blocker, studio.parts.database.session() as other:
            first, *behind = await counters(other, studio)
            await lock(blocker, "quota_counters", first)
            doing = asyncio.create_task(
                {
                    "reserve": lambda: desk.reserve(desk.exchange()),
                    "settle": lambda: desk.ledger.settle(desk.record(held)),
                    "sweep": desk.quotas.sweep,
                }[statement]()
            )
            await waiting(other)
            for limit_id in behind:
                await lock(other, "quota_counters", limit_id)  # nobody holds it
        await doing

    async def test_who_settles_holds_no_counter_while_it_waits_for_a_reservation(self, studio):
        await limit(studio, tokens_per_month=100, tokens_per_minute=100, requests_per_minute=100)
        desk = Desk(studio)
        await desk.reserve(held := desk.exchange())
        async with studio.parts.database.session() as blocker, studio.parts.database.session() as other:
            found = await counters(other, studio)
            await lock(blocker, "quota_reservations", found[-1])
            settling = asyncio.create_task(desk.ledger.settle(desk.record(held)))
            await waiting(other)
            for limit_id in found:
                await lock(other, "quota_counters", limit_id)
        await settling
        assert await taken(studio) == (4, 0)

    @pytest.mark.parametrize("statement", ["renew", "sweep"])
    async def test_who_renews_or_sweeps_passes_over_what_is_just_being_settled(self, studio, statement):
        await limit(studio, tokens_per_month=100, tokens_per_minute=100)
        desk = Desk(studio, lease_s=SHORT_S)
        async with desk.quotas.reserved(desk.exchange()):
            await asyncio.sleep(2 * SHORT_S)
            async with studio.parts.database.session() as blocker:
                for limit_id in await counters(blocker, studio):
                    await lock(blocker, "quota_reservations", limit_id)
                await asyncio.wait_for(getattr(desk.quotas, statement)(), 2)
        assert await taken(studio) == (0, COST)


async def counters(session, studio) -> list[str]:
    """Return the ids of the account's limits, in the order in which all take their counters."""
    found = await session.scalars(
        select(QuotaLimit.id).where(QuotaLimit.account_id == studio.account_id).order_by(QuotaLimit.id)
    )
    return list(found)


async def reservations(studio) -> int:
    """Return how many the account has, those that were swept among them."""
    async with studio.parts.database.session() as session:
        held = "SELECT count(*) FROM quota_reservations JOIN quota_limits ON id = limit_id WHERE account_id = :id"
        return await session.scalar(text(held), {"id": studio.account_id})


async def lock(session, table: str, limit_id: str) -> None:
    """Lock what there is of a limit; an error if anyone else holds it."""
    statement = f"SELECT 1 FROM {table} WHERE limit_id = :id FOR UPDATE NOWAIT"  # noqa: S608  # ours
    assert (await session.execute(text(statement), {"id": limit_id})).all()


# Not pg_stat_activity, which stands still within a transaction.
WAITING = """
SELECT count(*) FROM pg_locks AS wanted WHERE NOT granted AND EXISTS (
    SELECT FROM pg_locks AS held JOIN pg_database ON pg_database.oid = held.database
    WHERE held.pid = wanted.pid AND datname = current_database()
)
"""


async def waiting(session) -> None:
    """Return once somebody waits for a lock."""
    deadline = time.monotonic() + 5
    while not await session.scalar(text(WAITING)):
        assert time.monotonic() < deadline, "nobody waits"
        await asyncio.sleep(0.01)


class TestTogether:
    async def test_no_statement_waits_for_another_in_a_circle(self, studio):
        """Each of these does everything at random; a deadlock is an error, and so is a count that is off by one."""
        room = 20
        limits = {
            "tokens_per_month": room * COST,
            "tokens_per_minute": room * COST,
            "requests_per_minute": 100_000,
            "concurrent_requests": room,
        }
        await limit(studio, **limits)
        used: list[int] = []

        async def work(seed: int) -> None:
            dice = random.Random(seed)  # noqa: S311  # a seeded test
            desk = Desk(studio, lease_s=dice.choice([0.01, LONG_S]))
            for _ in range(12):
                exchange = desk.exchange()
                tokens = dice.randrange(2)
                async with AsyncExitStack() as stack:
                    try:
                        await stack.enter_async_context(desk.quotas.reserved(exchange))
                    except HunminError as error:
                        assert error.code is ErrorCode.QUOTA_EXCEEDED  # noqa: PT017
                        continue
                    await asyncio.sleep(dice.random() * 0.02)
                    await dice.choice([desk.quotas.sweep, desk.quotas.renew, desk.quotas.tidy])()
                    record = desk.record(exchange, tokens=tokens)
                    await asyncio.gather(*(desk.ledger.settle(record) for _ in range(dice.choice([1, 2]))))
                    used.append(tokens)

        await asyncio.gather(*(work(seed) for seed in range(24)))
        assert len(used) > 24
        assert await taken(studio) == (sum(used), 0)
        quotas = (await studio.http.get("/studio/v1/quotas")).json()["data"]
        assert [quota["reserved"] for quota in quotas] == [0] * 4

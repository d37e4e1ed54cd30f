"""The pipeline with a scripted generation service and a ledger that is a list. No I/O."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import ChunkEvent, GenerateEvent, GenerateRequest, PromptEvent, UsageEvent
from hunmin_contracts.ids import AccountId, ApiKeyId, ProjectId, RequestId
from hunmin_contracts.tenancy import SCOPES, KeyKind, Role
from hunmin_contracts.usage import Outcome
from hunmin_gateway.exchange import Exchange, Meter, Tokens
from hunmin_gateway.pipeline import Pipeline
from hunmin_gateway.principal import Principal
from hunmin_gateway.usage.record import UsageRecord

PROMPT = PromptEvent(prompt_tokens=3)
CHUNKS = [ChunkEvent(index=0, text="가", completion_tokens=count) for count in (1, 2, 4)]
USAGE = UsageEvent(prompt_tokens=3, completion_tokens=5)


class ScriptedGeneration:
    """Answers each prompt with the script of that name: events, an error to raise, or `...` to wait for ever."""

    def __init__(self, **scripts: list) -> None:
        self._scripts = scripts
        self.open = 0

    @asynccontextmanager
    async def stream(self, _, request: GenerateRequest) -> AsyncIterator[AsyncIterator[GenerateEvent]]:
        self.open += 1
        try:
            yield self._events(self._scripts[request.prompt])
        finally:
            self.open -= 1

    async def _events(self, script: list) -> AsyncIterator[GenerateEvent]:
        for step in script:
            if isinstance(step, Exception):
                raise step
            if step is ...:
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            yield GenerateEvent(step)


class ListLedger(list[UsageRecord]):
    """Keeps the rows in memory."""

    async def settle(self, record: UsageRecord) -> None:
        self.append(record)


class Free:
    """Has room for everything."""

    @asynccontextmanager
    async def reserved(self, _) -> AsyncIterator[None]:
        yield


class Full:
    """Has room for nothing."""

    @asynccontextmanager
    async def reserved(self, _) -> AsyncIterator[None]:
        raise HunminError(ErrorCode.QUOTA_EXCEEDED, "full")
        yield


def exchange(*prompts: str) -> Exchange:
    principal = Principal(
        account_id=AccountId("acct_1"),
        project_id=ProjectId("proj_1"),
        key_id=ApiKeyId("key_1"),
        user_id=None,
        role=Role.DEVELOPER,
        kind=KeyKind.SERVICE,
        scopes=SCOPES[Role.DEVELOPER],
        is_account_wide=False,
        is_operator=False,
        has_limits=False,
    )
    requests = [GenerateRequest(account_id=AccountId("acct_1"), model="m", prompt=prompt) for prompt in prompts]
    return Exchange(RequestId("req_1"), principal, "/v1/completions", "m", requests)


async def drain(
    generation: ScriptedGeneration, *prompts: str, ledger: ListLedger | None = None
) -> tuple[list, ListLedger]:
    ledger = ListLedger() if ledger is None else ledger
    seen = []
    async with Pipeline(generation, ledger, Free()).run(exchange(*prompts)) as events:
        await events.accepted()
        seen = [(number, event) async for number, event in events]
    return seen, ledger


async def test_gives_every_event_once_in_order_and_settles_what_was_metered():
    generation = ScriptedGeneration(a=[PROMPT, *CHUNKS, USAGE], b=[PROMPT, USAGE])
    seen, (row,) = await drain(generation, "a", "b")
    assert [event for number, event in seen if number == 0] == [PROMPT, *CHUNKS, USAGE]
    assert [event for number, event in seen if number == 1] == [PROMPT, USAGE]
    assert (row.prompt_tokens, row.completion_tokens, row.status, row.error_code) == (6, 10, Outcome.SUCCEEDED, None)
    assert generation.open == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [(HunminError(ErrorCode.OVERLOADED, "full"), ErrorCode.OVERLOADED), (ZeroDivisionError(), ErrorCode.INTERNAL)],
)
async def test_a_prompt_that_fails_ends_the_others_and_costs_nothing(error, code):
    generation, ledger = ScriptedGeneration(a=[PROMPT, *CHUNKS, ...], b=[PROMPT, error]), ListLedger()
    with pytest.raises(type(error)):
        await drain(generation, "a", "b", ledger=ledger)
    (row,) = ledger
    assert (row.prompt_tokens, row.completion_tokens, row.status, row.error_code) == (0, 0, Outcome.FAILED, code)
    assert generation.open == 0


async def test_a_request_that_a_quota_refuses_calls_nothing_and_leaves_no_row():
    generation, ledger = ScriptedGeneration(a=[PROMPT, USAGE]), ListLedger()
    with pytest.raises(HunminError, match="full"):
        async with Pipeline(generation, ledger, Full()).run(exchange("a")):
            pytest.fail("it was let in")
    assert (generation.open, ledger) == (0, [])


async def test_no_prompt_is_accepted_before_all_are():
    generation = ScriptedGeneration(a=[PROMPT, *CHUNKS, ...], b=[HunminError(ErrorCode.MODEL_NOT_FOUND, "none")])
    with pytest.raises(HunminError, match="none"):
        await drain(generation, "a", "b")


async def test_a_cancelled_exchange_settles_what_had_arrived_even_if_nobody_read_it():
    generation, ledger = ScriptedGeneration(a=[PROMPT, *CHUNKS, ...]), ListLedger()

    async def read() -> None:
        async with Pipeline(generation, ledger, Free()).run(exchange("a")) as events:
            await anext(events)
            await asyncio.Event().wait()

    reading = asyncio.create_task(read())
    for _ in range(20):
        await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    (row,) = ledger
    assert (row.prompt_tokens, row.completion_tokens, row.status) == (3, 4, Outcome.CANCELLED)
    assert generation.open == 0


async def test_a_closed_generator_counts_as_cancelled():
    generation, ledger = ScriptedGeneration(a=[PROMPT, *CHUNKS, ...]), ListLedger()

    async def frames() -> AsyncIterator[object]:
        async with Pipeline(generation, ledger, Free()).run(exchange("a")) as events:
            async for event in events:
                yield event

    reading = frames()
    await anext(reading)
    await reading.aclose()
    assert [row.status for row in ledger] == [Outcome.CANCELLED]
    assert generation.open == 0


async def test_an_answer_without_its_end_is_a_failure():
    with pytest.raises(HunminError, match="stopped before the end") as failure:
        await drain(ScriptedGeneration(a=[PROMPT, *CHUNKS]), "a")
    assert failure.value.code is ErrorCode.UNAVAILABLE


def test_the_meter_adds_prompts_and_choices_and_trusts_the_engine_s_last_word():
    meter = Meter()
    for number, event in (
        (0, PromptEvent(prompt_tokens=3)),
        (1, PromptEvent(prompt_tokens=4)),
        (0, ChunkEvent(index=0, text="", completion_tokens=2)),
        (0, ChunkEvent(index=1, text="", completion_tokens=5)),
        (1, ChunkEvent(index=0, text="", completion_tokens=1)),
    ):
        meter.count(number, event)
    assert (meter.prompt_tokens, meter.completion_tokens) == (7, 8)
    meter.count(0, UsageEvent(prompt_tokens=3, completion_tokens=9))
    assert (meter.prompt_tokens, meter.completion_tokens) == (7, 10)


class TestMetered:
    """Calls that are no streams of text settle in the same ledger."""

    async def test_settles_the_last_that_each_call_told(self):
        ledger = ListLedger()
        async with Pipeline(ScriptedGeneration(), ledger, Free()).metered(exchange("a")) as meter:
            meter.record(Tokens(prompt=3))
            meter.record(Tokens(prompt=3, backward=20))
            meter.record(Tokens(prompt=4, completion=2), call=1)
        (row,) = ledger
        assert (row.prompt_tokens, row.completion_tokens, row.backward_tokens) == (7, 2, 20)
        assert row.status is Outcome.SUCCEEDED

    @pytest.mark.parametrize(
        ("error", "status", "backward", "code"),
        [
            (HunminError(ErrorCode.OVERLOADED, "full"), Outcome.FAILED, 0, ErrorCode.OVERLOADED),
            (ZeroDivisionError(), Outcome.FAILED, 0, ErrorCode.INTERNAL),
            (asyncio.CancelledError(), Outcome.CANCELLED, 20, None),
        ],
    )
    async def test_a_failed_call_costs_nothing_and_a_cancelled_one_what_it_told(self, error, status, backward, code):
        ledger = ListLedger()

        async def call() -> None:
            async with Pipeline(ScriptedGeneration(), ledger, Free()).metered(exchange("a")) as meter:
                meter.record(Tokens(prompt=3, backward=20))
                raise error

        with pytest.raises(type(error)):
            await call()
        (row,) = ledger
        assert (row.status, row.backward_tokens, row.error_code) == (status, backward, code)
        assert row.is_awaited is (status is Outcome.CANCELLED)

"""The engine's thread: streams into the event loop, cancels when the reader leaves, refuses what is too much, ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import Sampling
from hunmin_generation.engine.engine import Engine
from hunmin_generation.engine.request import EngineRequest
from hunmin_generation.engine.thread import EngineThread

GREEDY = Sampling(temperature=0)


def request(*prompt: int, n: int = 1, max_tokens: int = 60) -> EngineRequest:
    return EngineRequest(list(prompt), sampling=GREEDY, n=n, max_tokens=max_tokens, ignore_end=True)


@asynccontextmanager
async def started(engine: Engine, *, max_queue: int = 8) -> AsyncIterator[EngineThread]:
    thread = EngineThread(engine, threads=1, max_queue=max_queue)
    thread.start()
    try:
        yield thread
    finally:
        await thread.close()


async def text(thread: EngineThread, one: EngineRequest) -> str:
    return "".join([event.text async for event in thread.generate(one) if event.type == "chunk"])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # the engine's state has no event to wait for
            await asyncio.sleep(0.002)


async def test_concurrent_streams_get_what_each_gets_alone(new_engine) -> None:
    requests = [request(*range(1, 3 + i), max_tokens=20 + i) for i in range(8)]
    async with started(new_engine()) as thread:
        alone = [await text(thread, one) for one in requests]
        together = await asyncio.gather(*(text(thread, one) for one in requests))
    assert together == alone
    assert len(set(alone)) == 8


async def test_events_arrive_while_the_engine_goes_on(new_engine) -> None:
    async with started(new_engine()) as thread:
        async for event in thread.generate(request(1, 2, max_tokens=90)):
            if event.type == "chunk":
                assert not thread.engine.is_idle
                break


async def test_a_reader_who_leaves_frees_the_sequence(new_engine) -> None:
    engine = new_engine()
    async with started(engine) as thread:
        async with aclosing(thread.generate(request(1, 2, max_tokens=90))) as events:
            await anext(events)
            await anext(events)
        left_at = time.monotonic()
        await until(lambda: engine.is_idle and engine.scheduler.blocks.usage == 0)
        assert time.monotonic() - left_at < 1
    assert engine.counts.cancelled == 1


async def test_a_cancelled_task_frees_the_sequence(new_engine) -> None:
    engine = new_engine()
    async with started(engine) as thread:
        task = asyncio.create_task(text(thread, request(1, 2, n=4, max_tokens=90)))
        await until(lambda: engine.scheduler.blocks.usage > 0)
        task.cancel()
        await until(lambda: engine.is_idle)
    assert engine.scheduler.blocks.usage == 0


async def test_more_than_the_queue_holds_is_refused_until_there_is_room(new_engine) -> None:
    engine = new_engine(max_running=2)
    async with started(engine, max_queue=2) as thread:
        running = [thread.generate(request(1, 2, max_tokens=90)) for _ in range(4)]
        for stream in running:
            await anext(stream)
        with pytest.raises(HunminError) as refused:
            await text(thread, request(3))
        assert refused.value.code == ErrorCode.OVERLOADED
        assert refused.value.details["retry_after_s"] >= 1
        for stream in running:
            await stream.aclose()
        assert await text(thread, request(3))


async def test_more_choices_than_the_queue_ever_holds_are_no_matter_of_time(new_engine) -> None:
    async with started(new_engine(max_running=2), max_queue=2) as thread:
        with pytest.raises(HunminError) as refused:
            await anext(thread.generate(request(1, n=5)))
    assert (refused.value.code, refused.value.details) == (ErrorCode.INVALID_PARAMETER, {"param": "n"})


async def test_a_request_that_never_fits_is_refused_before_its_first_event(new_engine) -> None:
    async with started(new_engine()) as thread:
        with pytest.raises(HunminError) as refused:
            await anext(thread.generate(request(1, max_tokens=96)))
    assert refused.value.code == ErrorCode.PROMPT_TOO_LONG


async def test_closing_ends_what_runs_with_an_error_and_refuses_more(new_engine) -> None:
    async with started(new_engine()) as thread:
        stream = thread.generate(request(1, 2, max_tokens=90))
        await anext(stream)
    with pytest.raises(HunminError) as ended:
        async for _ in stream:
            pass
    with pytest.raises(HunminError) as refused:
        await text(thread, request(1))
    assert ended.value.code == refused.value.code == ErrorCode.UNAVAILABLE
    assert not thread.is_alive


async def test_a_fault_in_bookkeeping_ends_requests_not_the_thread(new_engine, monkeypatch) -> None:
    engine = new_engine()
    errors: list[Exception] = []
    thread = EngineThread(engine, threads=1, max_queue=8, on_failure=errors.append)
    thread.start()
    with monkeypatch.context() as broken:
        broken.setattr(engine.scheduler, "schedule", lambda: 1 / 0)
        with pytest.raises(HunminError) as failed:
            await text(thread, request(1))
    assert failed.value.code == ErrorCode.INTERNAL
    assert [type(error) for error in errors] == [ZeroDivisionError]
    assert await text(thread, request(1))
    await thread.close()

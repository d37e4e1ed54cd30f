"""Rows in memory: one load, pinned while used, the longest unused go first, what finds no room waits its turn."""

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_generation.soft_prompts.residents import Residents

SIZE = 10


class Store:
    """Counts its loads, and holds them back while `gate` is shut."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = False

    def load(self, key: str) -> Any:
        async def load() -> torch.Tensor:
            self.loaded.append(key)
            await self.gate.wait()
            if self.fails:
                raise HunminError(ErrorCode.NOT_FOUND, "gone")
            return torch.tensor([float(key)])

        return load


@pytest.fixture
async def store() -> Store:
    return Store()


def residents_of(limit_bytes: int, *, max_waiting: int = 9, wait_s: float = 20) -> Residents:
    return Residents(limit_bytes, max_waiting=max_waiting, wait_s=wait_s)


async def settle() -> None:
    """Let every task go on as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def use(residents: Residents, store: Store, key: str) -> float:
    async with residents.hold(key, SIZE, store.load(key)) as rows:
        assert rows.key == key
        return float(rows.rows)


async def test_is_loaded_once_for_all_that_come_meanwhile(store: Store) -> None:
    residents = residents_of(3 * SIZE)
    store.gate.clear()
    uses = [asyncio.create_task(use(residents, store, "1")) for _ in range(20)]
    await asyncio.sleep(0)
    uses[0].cancel()  # the first to come leaves first
    await asyncio.sleep(0)
    store.gate.set()
    assert await asyncio.gather(*uses[1:]) == [1.0] * 19
    assert await use(residents, store, "1") == 1.0
    assert store.loaded == ["1"]
    assert (residents.loads, residents.used, len(residents), residents.held_bytes) == (1, 0, 1, SIZE)


async def test_the_longest_unused_goes_first(store: Store) -> None:
    residents = residents_of(3 * SIZE)
    for key in "1231":
        await use(residents, store, key)
    await use(residents, store, "4")
    assert (len(residents), residents.held_bytes, residents.evictions) == (3, 3 * SIZE, 1)
    for key in "134":
        await use(residents, store, key)
    assert store.loaded == ["1", "2", "3", "4"]
    await use(residents, store, "2")
    assert store.loaded[-1] == "2"


async def test_what_is_used_stays_and_what_finds_no_room_in_time_is_refused(store: Store) -> None:
    residents = residents_of(2 * SIZE, wait_s=0)
    async with AsyncExitStack() as stack:
        for key in "12":
            await stack.enter_async_context(residents.hold(key, SIZE, store.load(key)))
        with pytest.raises(HunminError) as caught:
            await use(residents, store, "3")
        assert (caught.value.code, caught.value.details) == (ErrorCode.OVERLOADED, {"retry_after_s": 1})
        assert await use(residents, store, "1") == 1.0
        assert (store.loaded, residents.waiting) == (["1", "2"], 0)
    assert await use(residents, store, "3") == 3.0


async def test_what_finds_no_room_drops_nothing(store: Store) -> None:
    residents = residents_of(3 * SIZE, wait_s=0)
    for key in "123":
        await use(residents, store, key)
    async with residents.hold("1", SIZE, store.load("1")), residents.hold("2", SIZE, store.load("2")):
        with pytest.raises(HunminError, match="no room"):
            async with residents.hold("4", 2 * SIZE, store.load("4")):
                pass
    assert (len(residents), residents.held_bytes, residents.evictions) == (3, 3 * SIZE, 0)
    assert store.loaded == ["1", "2", "3"]


class TestWaiting:
    async def test_is_in_the_order_of_arrival(self, store: Store) -> None:
        residents = residents_of(2 * SIZE)
        begun: list[str] = []
        ends = {key: asyncio.Event() for key in "12345"}

        async def use_until_its_end(key: str) -> None:
            async with residents.hold(key, SIZE, store.load(key)):
                begun.append(key)
                await ends[key].wait()

        tasks = [asyncio.create_task(use_until_its_end(key)) for key in "12345"]
        await settle()
        assert (begun, residents.waiting) == (["1", "2"], 3)
        assert await use(residents, store, "2") == 2.0  # what is in memory is used at once
        for key, next_key in zip("213", "345", strict=True):
            ends[key].set()
            await settle()
            assert begun[-1] == next_key
            assert residents.held_bytes == 2 * SIZE
        for key in "45":
            ends[key].set()
        await asyncio.gather(*tasks)
        assert (store.loaded, residents.waiting, residents.used) == (["1", "2", "3", "4", "5"], 0, 0)

    async def test_is_over_for_who_leaves(self, store: Store) -> None:
        residents = residents_of(SIZE)
        async with residents.hold("1", SIZE, store.load("1")):
            first, second = (asyncio.create_task(use(residents, store, key)) for key in "23")
            await settle()
            assert residents.waiting == 2
            first.cancel()
            await settle()
            assert residents.waiting == 1
        assert await second == 3.0
        assert store.loaded == ["1", "3"]
        assert first.cancelled()

    async def test_is_for_so_many(self, store: Store) -> None:
        residents = residents_of(SIZE, max_waiting=1)
        async with residents.hold("1", SIZE, store.load("1")):
            waiting = asyncio.create_task(use(residents, store, "2"))
            await settle()
            with pytest.raises(HunminError) as caught:
                await use(residents, store, "3")
            assert caught.value.code is ErrorCode.OVERLOADED
        assert await waiting == 2.0

    async def test_ends_when_a_load_fails(self, store: Store) -> None:
        residents = residents_of(SIZE)
        store.fails = True
        store.gate.clear()
        first = asyncio.create_task(use(residents, store, "1"))
        second = asyncio.create_task(use(residents, store, "2"))
        await settle()
        assert residents.waiting == 1
        store.gate.set()
        ends = await asyncio.gather(first, second, return_exceptions=True)
        assert [end.code for end in ends if isinstance(end, HunminError)] == [ErrorCode.NOT_FOUND] * 2
        assert (len(residents), residents.waiting) == (0, 0)

    @pytest.mark.parametrize("seed", range(10))
    async def test_never_holds_more_than_the_limit(self, store: Store, seed: int) -> None:
        rng, held = random.Random(seed), []  # noqa: S311  # schedules, not secrets
        residents = residents_of(4 * SIZE, max_waiting=60)
        sizes = [rng.choice([1, 1, 2, 3]) * SIZE for _ in range(12)]

        async def use_a_while(key: int, steps: int) -> None:
            async with residents.hold(str(key), sizes[key], store.load(str(key))) as rows:
                assert float(rows.rows) == key
                for _ in range(steps):
                    held.append(residents.held_bytes)
                    await asyncio.sleep(0)

        tasks = [asyncio.create_task(use_a_while(rng.randrange(12), rng.randrange(1, 30))) for _ in range(60)]
        for task in tasks[::7]:
            await asyncio.sleep(0)
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [end for end in ends if end is not None and not isinstance(end, asyncio.CancelledError)] == []
        assert sum(end is None for end in ends) > 40
        assert max(held) == 4 * SIZE
        assert (residents.used, residents.waiting) == (0, 0)


async def test_one_that_is_larger_than_the_limit_is_served_alone(store: Store) -> None:
    residents = residents_of(SIZE - 1)
    assert await use(residents, store, "1") == 1.0
    assert await use(residents, store, "2") == 2.0
    assert len(residents) == 1


async def test_a_load_that_fails_is_tried_again_by_the_next(store: Store) -> None:
    residents = residents_of(SIZE)
    store.fails = True
    store.gate.clear()
    uses = [asyncio.create_task(use(residents, store, "1")) for _ in range(3)]
    await asyncio.sleep(0)
    store.gate.set()
    ends = await asyncio.gather(*uses, return_exceptions=True)
    assert [end.code for end in ends if isinstance(end, HunminError)] == [ErrorCode.NOT_FOUND] * 3
    assert (len(residents), residents.held_bytes) == (0, 0)
    store.fails = False
    assert await use(residents, store, "1") == 1.0


async def test_forgetting_waits_for_the_last_use(store: Store) -> None:
    residents = residents_of(3 * SIZE)
    async with residents.hold("1", SIZE, store.load("1")) as rows:
        residents.forget("1")
        residents.forget("2")
        assert float(rows.rows) == 1.0
        assert len(residents) == 1
    assert (len(residents), residents.held_bytes) == (0, 0)
    await use(residents, store, "1")
    residents.forget("1")
    assert (len(residents), residents.held_bytes) == (0, 0)


async def test_forgetting_what_is_on_its_way(store: Store) -> None:
    residents = residents_of(3 * SIZE)
    store.gate.clear()
    task = asyncio.create_task(use(residents, store, "1"))
    await asyncio.sleep(0)
    residents.forget("1")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(residents) == 1
    store.gate.set()
    await asyncio.sleep(0.01)
    assert (len(residents), residents.held_bytes) == (0, 0)

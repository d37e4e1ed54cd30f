"""Rows in memory: one load, pinned while used, the longest unused go first."""

import asyncio
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


async def use(residents: Residents, store: Store, key: str) -> float:
    async with residents.hold(key, SIZE, store.load(key)) as rows:
        assert rows.key == key
        return float(rows.rows)


async def test_is_loaded_once_for_all_that_come_meanwhile(store: Store) -> None:
    residents = Residents(3 * SIZE)
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
    residents = Residents(3 * SIZE)
    for key in "1231":
        await use(residents, store, key)
    await use(residents, store, "4")
    assert (len(residents), residents.held_bytes, residents.evictions) == (3, 3 * SIZE, 1)
    for key in "134":
        await use(residents, store, key)
    assert store.loaded == ["1", "2", "3", "4"]
    await use(residents, store, "2")
    assert store.loaded[-1] == "2"


async def test_what_is_used_stays_and_what_finds_no_room_is_refused(store: Store) -> None:
    residents = Residents(2 * SIZE)
    async with AsyncExitStack() as stack:
        for key in "12":
            await stack.enter_async_context(residents.hold(key, SIZE, store.load(key)))
        with pytest.raises(HunminError) as caught:
            await use(residents, store, "3")
        assert (caught.value.code, caught.value.details) == (ErrorCode.OVERLOADED, {"retry_after_s": 1})
        assert await use(residents, store, "1") == 1.0
        assert store.loaded == ["1", "2"]
    assert await use(residents, store, "3") == 3.0


async def test_one_that_is_larger_than_the_limit_is_served_alone(store: Store) -> None:
    residents = Residents(SIZE - 1)
    assert await use(residents, store, "1") == 1.0
    assert await use(residents, store, "2") == 2.0
    assert len(residents) == 1


async def test_a_load_that_fails_is_tried_again_by_the_next(store: Store) -> None:
    residents = Residents(SIZE)
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
    residents = Residents(3 * SIZE)
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
    residents = Residents(3 * SIZE)
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

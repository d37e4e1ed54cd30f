"""How long the provider's keys are used, and how often it is asked for them. On a clock of the test's own."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_kit.identity.oidc.keys import INTERVAL_S, RETRY_S, KeyCache

FRESH_S, MAX_STALE_S = 60.0, 600.0


@dataclass
class Provider:
    """A key set, and a clock that only the test and the cache's own pauses move."""

    keys: list[Any] = field(default_factory=list)
    now: float = 1000.0
    is_away: bool = False
    read_at: list[float] = field(default_factory=list)
    gate: asyncio.Event | None = None
    is_asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> list[Any]:
        self.read_at.append(self.now)
        keys = [key.as_dict(private=False) for key in self.keys]
        if self.gate is not None:
            self.is_asked.set()
            await self.gate.wait()
        if self.is_away:
            raise HunminError(ErrorCode.UNAVAILABLE, "away")
        return keys

    async def pause(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def provider(some_keys) -> Provider:
    return Provider(keys=[some_keys[0]])


@pytest.fixture
def cache(provider) -> KeyCache:
    return KeyCache(
        provider.read, fresh_s=FRESH_S, max_stale_s=MAX_STALE_S, clock=lambda: provider.now, pause=provider.pause
    )


async def is_known(cache: KeyCache, key: Any) -> bool:
    try:
        return (await cache.key(key.kid, key.alg)).kid == key.kid
    except HunminError as error:
        if error.code is not ErrorCode.UNAUTHENTICATED:
            raise
        return False


async def refused_code(cache: KeyCache, key: Any) -> ErrorCode:
    with pytest.raises(HunminError) as refused:
        await cache.key(key.kid, key.alg)
    return refused.value.code


class TestRotation:
    async def test_a_known_key_asks_once(self, provider, cache, some_keys):
        for _ in range(100):
            assert await is_known(cache, some_keys[0])
            provider.now += FRESH_S / 101
        assert len(provider.read_at) == 1

    async def test_a_new_key_is_accepted_at_once(self, provider, cache, some_keys):
        assert await is_known(cache, some_keys[0])
        provider.keys.append(some_keys[1])
        assert await is_known(cache, some_keys[1])
        assert provider.now < 1000 + 2 * INTERVAL_S

    async def test_also_right_after_a_flood_of_keys_that_nobody_has(self, provider, cache, some_keys):
        for number in range(50):
            with pytest.raises(HunminError):
                await cache.key(f"made-up-{number}", "RS256")
        before = provider.now
        provider.keys.append(some_keys[1])
        assert await is_known(cache, some_keys[1])
        assert provider.now - before <= INTERVAL_S

    async def test_a_flood_asks_once_a_second(self, provider, cache):
        gone = await asyncio.gather(
            *(cache.key(f"made-up-{number}", "RS256") for number in range(500)), return_exceptions=True
        )
        assert {type(error) for error in gone} == {HunminError}
        assert len(provider.read_at) <= 3  # however many came
        pauses = [later - earlier for earlier, later in zip(provider.read_at, provider.read_at[1:], strict=False)]
        assert all(pause >= INTERVAL_S for pause in pauses)

    async def test_a_key_made_while_the_set_is_being_read_is_looked_for_again(self, provider, cache, some_keys):
        provider.gate = asyncio.Event()
        first = asyncio.create_task(is_known(cache, some_keys[0]))
        await provider.is_asked.wait()
        provider.keys.append(some_keys[1])
        provider.now += 0.1
        second = asyncio.create_task(is_known(cache, some_keys[1]))
        await asyncio.sleep(0)
        provider.gate.set()
        assert await first
        assert await second


class TestDisabledKeys:
    async def test_are_refused_once_the_set_is_no_longer_fresh(self, provider, cache, some_keys):
        assert await is_known(cache, some_keys[0])
        provider.keys = [some_keys[1]]
        provider.now += FRESH_S - 1
        assert await is_known(cache, some_keys[0])
        provider.now += 1
        assert not await is_known(cache, some_keys[0])

    async def test_are_refused_sooner_if_a_new_one_is_seen(self, provider, cache, some_keys):
        assert await is_known(cache, some_keys[0])
        provider.keys = [some_keys[1]]
        assert await is_known(cache, some_keys[1])
        assert not await is_known(cache, some_keys[0])


class TestProviderAway:
    async def test_known_keys_are_used_until_they_are_too_old(self, provider, cache, some_keys):
        assert await is_known(cache, some_keys[0])
        provider.is_away = True
        for _ in range(9):
            provider.now += FRESH_S
            assert await is_known(cache, some_keys[0])
        provider.now += FRESH_S
        assert await refused_code(cache, some_keys[0]) is ErrorCode.UNAVAILABLE
        assert await refused_code(cache, some_keys[0]) is ErrorCode.UNAVAILABLE

    async def test_they_are_not_accepted_again_before_it_is_back(self, provider, cache, some_keys):
        assert await is_known(cache, some_keys[0])
        provider.is_away = True
        provider.now += MAX_STALE_S
        assert await refused_code(cache, some_keys[0]) is ErrorCode.UNAVAILABLE
        provider.is_away = False
        assert await is_known(cache, some_keys[0])

    async def test_an_unknown_key_is_neither_accepted_nor_called_wrong(self, provider, cache, some_keys):
        assert await is_known(cache, some_keys[0])
        provider.is_away = True
        assert await refused_code(cache, some_keys[1]) is ErrorCode.UNAVAILABLE

    async def test_a_first_key_is_not_accepted(self, provider, cache, some_keys):
        provider.is_away = True
        assert await refused_code(cache, some_keys[0]) is ErrorCode.UNAVAILABLE

    async def test_it_is_not_asked_by_every_request(self, provider, cache, some_keys):
        assert await is_known(cache, some_keys[0])
        provider.is_away = True
        provider.now += FRESH_S
        for _ in range(100):
            assert await is_known(cache, some_keys[0])
        assert len(provider.read_at) == 2
        provider.now += RETRY_S
        provider.is_away = False
        assert await is_known(cache, some_keys[0])
        assert len(provider.read_at) == 3

    async def test_requests_do_not_wait_for_it_while_keys_are_known(self, provider, cache, some_keys):
        assert await is_known(cache, some_keys[0])
        provider.gate = asyncio.Event()
        provider.now += FRESH_S
        waiting = asyncio.create_task(is_known(cache, some_keys[0]))
        await provider.is_asked.wait()
        assert await is_known(cache, some_keys[0])
        provider.gate.set()
        assert await waiting

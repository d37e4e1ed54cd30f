"""What a service says when it is ready, though what it asks cannot be reached yet."""

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_kit.run import platform
from hunmin_kit.run.platform import Platform


class Bare(Platform):
    """Nothing but what it says."""

    def __init__(self) -> None:
        self._ready_callbacks = []


async def test_an_outage_is_waited_out_and_nothing_is_said_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "_AGAIN_S", 0)
    made, asked = Bare(), []

    async def key(url: str) -> str | None:
        asked.append("key")
        return None if asked.count("key") > 1 else "the key"  # which is told once

    async def address(url: str) -> str:
        asked.append("address")
        if asked.count("address") < 3:
            raise HunminError(ErrorCode.UNAVAILABLE, "The database cannot be reached.")
        return url

    made.on_ready(key)
    made.on_ready(address)
    assert await made.announce("http://x") == ["the key", "http://x"]


async def test_what_is_wrong_ends_the_start() -> None:
    made = Bare()

    async def wrong(url: str) -> str:
        raise HunminError(ErrorCode.INVALID_PARAMETER, "A setting is wrong.")

    made.on_ready(wrong)
    with pytest.raises(HunminError):
        await made.announce("http://x")

"""Processes that end at any moment: every committed event has its effect once, and in the order of its key."""

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hunmin_kit.events import Subscription
from hunmin_kit.events.attempts import LOST_PROCESS, dead_letters, redrive
from kit_sample.events import QUICK, Noted, Process, note

from .conftest import Backbone, eventually, mended, seeded

TESTS = Path(__file__).parents[1]
KEYS = [f"key {number}" for number in range(4)]
PATIENCE_S = 90.0  # Kafka gives the partitions of a process that was killed to another after ten seconds


class Teller:
    """Tells events under one key, in transactions that are open for a while and sometimes rolled back."""

    def __init__(self, process: Process, key: str, rng: random.Random) -> None:
        self.key = key
        self.committed: list[int] = []
        self._process = process
        self._rng = rng
        self._next = 0

    async def tell(self, count: int) -> None:
        for _ in range(count):
            self._next += 10
            with contextlib.suppress(ZeroDivisionError):
                async with self._process.database.session() as session:
                    told = [self._next + part for part in range(self._rng.randint(1, 3))]
                    for each in told:
                        await self._process.events.tell(session, self._process.topic, Noted(value=each), key=self.key)
                        await asyncio.sleep(self._rng.choice([0, 0, 0.01, 0.05]))
                    if self._rng.random() < 0.2:
                        raise ZeroDivisionError
                self.committed += told


async def check(beta: Process, tellers: list[Teller]) -> None:
    """Wait until there are as many effects as there should be, and then hold them to all that is promised."""
    expected = sum(len(teller.committed) for teller in tellers)

    async def is_complete() -> bool:
        return len(await beta.effects()) >= expected

    await eventually(is_complete, within_s=PATIENCE_S)
    await asyncio.sleep(0.3)
    effects = await beta.effects()
    for teller in tellers:
        assert [value for key, value in effects if key == teller.key] == teller.committed
    assert len(effects) == expected
    async with beta.database.session() as session:
        assert await dead_letters(session, limit=1) == []


async def run_until_cancelled(process: Process, *subscriptions: Subscription[Noted]) -> None:
    async with process.events.running(*subscriptions):
        await asyncio.Event().wait()


async def restarted(process: Process, *subscriptions: Subscription[Noted], rng: random.Random) -> None:
    """Run the process, cancel it at a random moment, and run it again."""
    while True:
        again = process.again()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rng.uniform(0.05, 0.6)):
                await run_until_cancelled(again, *subscriptions)
        await again.database.close()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", range(2))
async def test_relays_and_consumers_that_are_cancelled_at_random(backbone: Backbone, seed: int) -> None:
    rng = seeded(seed)
    alpha, beta = backbone.alpha(), backbone.beta()
    subscription = Subscription("notes", beta.topic, note())
    tellers = [Teller(alpha, key, seeded(f"{seed} {key}")) for key in KEYS]
    unrest = [asyncio.create_task(restarted(alpha, rng=rng)) for _ in range(2)]
    unrest += [asyncio.create_task(restarted(beta, subscription, rng=rng)) for _ in range(2)]
    await asyncio.gather(*(teller.tell(20) for teller in tellers))
    await asyncio.sleep(0.5)
    for task in unrest:
        task.cancel()
    await asyncio.gather(*unrest, return_exceptions=True)
    async with alpha.again().events.running(), beta.again().events.running(subscription):
        await check(beta, tellers)


@contextmanager
def both_services(backbone: Backbone) -> Iterator["subprocess.Popen[str]"]:
    """Run alpha's relay and beta's consumer in a process of their own; kill it in the end."""
    command = [sys.executable, "-m", "kit_sample.events", backbone.url, backbone.topic.name, backbone.servers or ""]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def is_running(process: "subprocess.Popen[str]") -> None:
    assert await asyncio.to_thread(process.stdout.readline) == "running\n"


@pytest.mark.timeout(300)
async def test_processes_that_are_killed_at_random(backbone: Backbone) -> None:
    rng = seeded(6)
    alpha, beta = backbone.alpha(), backbone.beta()
    tellers = [Teller(alpha, key, seeded(key)) for key in KEYS]

    async def killed_again_and_again() -> None:
        for _ in range(3):
            with both_services(backbone) as process:
                await is_running(process)
                await asyncio.sleep(rng.uniform(0.1, 1.0))

    async def tell_slowly(teller: Teller) -> None:
        for _ in range(5):
            await teller.tell(4)
            await asyncio.sleep(rng.uniform(0.2, 0.8))

    with both_services(backbone) as steady:
        await is_running(steady)
        await asyncio.gather(killed_again_and_again(), *(tell_slowly(teller) for teller in tellers))
    with both_services(backbone):
        await check(beta, tellers)


@pytest.mark.timeout(300)
async def test_event_that_kills_its_process_dies_and_the_rest_goes_on_until_it_is_mended(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    await alpha.tell("key", 1)
    await alpha.tell("key", 2, act="kill")
    await alpha.tell("key", 3, 4, 5)
    deaths = 0
    while True:
        with both_services(backbone) as process:
            ended = asyncio.create_task(asyncio.to_thread(process.wait))
            done = asyncio.create_task(eventually(lambda: has_effects(beta, 4), within_s=PATIENCE_S))
            await asyncio.wait([ended, done], return_when=asyncio.FIRST_COMPLETED)
            process.kill()
            await ended
            if done.done():
                await done
                break
            done.cancel()
            deaths += 1
            assert deaths <= QUICK.max_attempts
    assert deaths == QUICK.max_attempts
    assert await beta.effects() == [("key", 1), ("key", 3), ("key", 4), ("key", 5)]
    async with beta.database.session() as session:
        (letter,) = await dead_letters(session, limit=10)
    assert letter.error == LOST_PROCESS
    await is_told_and_redriven(backbone, beta.again())


async def is_told_and_redriven(backbone: Backbone, beta: Process) -> None:
    """Check that the letter is told, whole, and that a release which it does not kill handles it once."""
    async with beta.events.running(Subscription("notes", beta.topic, mended)):
        topic, key, headers, content = await backbone.told_of_death(beta)
        async with beta.database.session() as session:
            assert await redrive(session) == 1
        await eventually(lambda: has_effects(beta, 5), within_s=PATIENCE_S)
        await asyncio.sleep(0.2)
    assert (topic, key) == (beta.topic.dead, "key")
    assert json.loads(content)["data"] == {"value": 2, "act": "kill"}
    told = {name: headers[name] for name in ("dead-consumer", "dead-error", "dead-attempts")}
    assert told == {"dead-consumer": "beta.notes", "dead-error": LOST_PROCESS, "dead-attempts": str(QUICK.max_attempts)}
    assert await beta.effects() == [("key", value) for value in (1, 3, 4, 5, 2)]
    assert await beta.fetch("SELECT 1 FROM event_attempts") == []


async def has_effects(process: Process, count: int) -> bool:
    return len(await process.effects()) >= count

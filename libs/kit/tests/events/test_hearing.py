"""What every process hears, on each bus: all of them, from their beginning on, and nobody keeps anything of it."""

import asyncio

from hunmin_contracts.events import Envelope
from hunmin_kit.events import Hearing
from kit_sample.events import Noted, Process

from .conftest import Backbone, eventually


class Ear:
    """What one process has heard; `is_open` once it hears what is told from then on."""

    def __init__(self, process: Process) -> None:
        self.heard: list[tuple[str, int]] = []
        self.hearing = Hearing(process.topic, self.hear)

    def hear(self, event: Envelope[Noted]) -> None:
        if event.data.act == "fail":
            raise RuntimeError("a bug")
        self.heard.append((event.subject, event.data.value))


async def is_open(alpha: Process, *ears: Ear) -> None:
    """Tell until all of them hear."""

    async def told() -> bool:
        await alpha.tell("now", 0)
        await asyncio.sleep(0.1)
        return all(("now", 0) in ear.heard for ear in ears)

    await eventually(told)


async def is_relayed(alpha: Process) -> bool:
    return not await alpha.fetch("SELECT 1 FROM event_outbox WHERE sequence IS NULL")


def since(ear: Ear) -> list[tuple[str, int]]:
    return [heard for heard in ear.heard if heard[0] != "now"]


async def test_each_process_hears_what_is_told_from_its_beginning_on(backbone: Backbone) -> None:
    alpha, one, other = backbone.alpha(), backbone.beta(), backbone.beta()
    ears = [Ear(one), Ear(other)]
    async with alpha.events.running():
        await alpha.tell("before", 1)
        await eventually(lambda: is_relayed(alpha))
        async with one.events.running(hearings=[ears[0].hearing]), other.events.running(hearings=[ears[1].hearing]):
            await is_open(alpha, *ears)
            await alpha.tell("key", 1, 2, 3)
            for ear in ears:
                await eventually(lambda ear=ear: asyncio.sleep(0, result=len(since(ear)) == 3))
    assert [since(ear) for ear in ears] == [[("key", 1), ("key", 2), ("key", 3)]] * 2
    assert await one.fetch("SELECT 1 FROM event_positions") == []


async def test_what_cannot_be_heard_is_passed_over(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    ear = Ear(beta)
    async with alpha.events.running(), beta.events.running(hearings=[ear.hearing]):
        await is_open(alpha, ear)
        await alpha.put("key", b"no event")
        await alpha.tell("key", 1, act="fail")
        await asyncio.sleep(0.3)  # a batch of its own: what is behind a failure in one is not heard
        await alpha.tell("key", 2)
        await eventually(lambda: asyncio.sleep(0, result=since(ear)))
    assert since(ear) == [("key", 2)]

"""What a consumer cannot handle becomes a dead letter, the rest goes on, and the letter can be tried again."""

import asyncio
import json
import os
from dataclasses import replace
from typing import Any

import pytest
from hunmin_contracts.events import MAX_EVENT_BYTES, Envelope, Topic
from hunmin_kit.events import Subscription
from hunmin_kit.events.attempts import DeadLetter, dead_letters, redrive
from hunmin_kit.events.record import record_of
from kit_sample.events import QUICK, Noted, Process, note
from sqlalchemy.ext.asyncio import AsyncSession

from .conftest import Backbone, created, eventually, mended


def notes(process: Process) -> Subscription[Noted]:
    return Subscription("notes", process.topic, note())


async def letters(process: Process) -> list[DeadLetter]:
    async with process.database.session() as session:
        return await dead_letters(session, limit=100)


async def has(process: Process, *, effects: int, dead: int) -> bool:
    return len(await process.effects()) >= effects and len(await letters(process)) >= dead


def document(process: Process, **changed: Any) -> bytes:
    record = record_of(process.topic, Noted(value=1), key="key", source="hunmin/alpha")
    return json.dumps(json.loads(record.content) | changed).encode()


UNREADABLE = {
    "no JSON": ("{", "It is not valid. the document: Invalid JSON"),
    "no text": (b"\xff\xfe", "It is not valid. the document"),
    "no event": ("[1, 2]", "It is not valid. the document"),
    "nested too deep": ("[" * 100_000, "It is not valid. the document: Invalid JSON"),
    "another specversion": ({"specversion": "2.0"}, "Its specversion is '2.0', which is not 1.0."),
    "another version": ({"type": "hunmin.alpha.note.v9"}, "Its type is 'hunmin.alpha.note.v9'"),
    "no data": ({"data": {"value": "비밀"}}, "It is not valid. data.value: "),
}


async def test_what_is_no_event_dies_at_once_and_the_rest_goes_on(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    async with alpha.events.running(), beta.events.running(notes(beta)):
        for number, (content, _) in enumerate(UNREADABLE.values()):
            put = document(alpha, **content) if isinstance(content, dict) else content
            await alpha.put("key", put.encode() if isinstance(put, str) else put)
            await alpha.tell("key", number)
        await eventually(lambda: has(beta, effects=len(UNREADABLE), dead=len(UNREADABLE)))
    assert [value for _, value in await beta.effects()] == list(range(len(UNREADABLE)))
    for letter, (_, said) in zip(await letters(beta), UNREADABLE.values(), strict=True):
        assert letter.error.startswith(said)
        assert "비밀" not in letter.error
        assert (letter.consumer, letter.topic, letter.key, letter.attempts) == ("beta.notes", beta.topic.name, "key", 1)


async def test_event_that_fails_again_and_again_dies_and_the_rest_of_its_key_goes_on(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    async with alpha.events.running(), beta.events.running(notes(beta)):
        await alpha.tell("key", 1)
        await alpha.tell("key", 2, act="fail")
        await alpha.tell("key", 3)
        await eventually(lambda: has(beta, effects=2, dead=1))
    assert await beta.effects() == [("key", 1), ("key", 3)]
    (letter,) = await letters(beta)
    assert letter.attempts == QUICK.max_attempts
    assert letter.error.startswith("builtins.RuntimeError\n")
    assert "비밀" not in letter.error
    for outcome, count in (("failed", 2), ("dead", 1), ("handled", 2)):
        labels = {"consumer": "beta.notes", "outcome": outcome}
        assert beta.metrics.registry.get_sample_value("hunmin_events_deliveries_total", labels) == count


async def test_event_that_hangs_dies(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta(timing=replace(QUICK, handler_s=0.2))
    async with alpha.events.running(), beta.events.running(notes(beta)):
        await alpha.tell("key", 1, act="hang")
        await alpha.tell("key", 2)
        await eventually(lambda: has(beta, effects=1, dead=1))
    assert await beta.effects() == [("key", 2)]
    assert "TimeoutError" in (await letters(beta))[0].error


async def test_event_whose_needs_are_away_waits_for_them(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    tries = 0

    async def handle(session: AsyncSession, event: Envelope[Noted]) -> None:
        nonlocal tries
        tries += 1
        away = tries <= QUICK.max_attempts + 3
        told = event.model_copy(update={"data": Noted(value=1, act="away" if away else "note")})
        await note()(session, told)

    async with alpha.events.running(), beta.events.running(Subscription("notes", beta.topic, handle)):
        await alpha.tell("key", 1)
        await eventually(lambda: has(beta, effects=1, dead=0))
    assert await letters(beta) == []


@pytest.mark.parametrize("what", ["no JSON", "another specversion", "another version"])
async def test_dead_letter_is_told_with_its_error(backbone: Backbone, what: str) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    content, said = UNREADABLE[what]
    put = document(alpha, **content) if isinstance(content, dict) else content.encode()
    async with beta.events.running(notes(beta)):
        async with alpha.events.running():
            await alpha.put("key", put)
            await eventually(lambda: has(beta, effects=0, dead=1))
        topic, key, headers, copy = await backbone.told_of_death(beta)
    assert (topic, key, copy) == (beta.topic.dead, "key", put)
    assert headers["dead-consumer"] == "beta.notes"
    assert headers["dead-error"].startswith(said)
    assert headers["dead-attempts"] == "1"


async def test_letter_that_is_redriven_has_its_effect_once(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    async with alpha.events.running(), beta.events.running(notes(beta)):
        await alpha.tell("a", 1, act="fail")
        await alpha.tell("b", 2, act="fail")
        await eventually(lambda: has(beta, effects=0, dead=2))

    first, _ = await letters(beta)
    async with beta.database.session() as session:
        assert await redrive(session, numbers=[first.number]) == 1
    another = beta.again()
    async with another.events.running(Subscription("notes", beta.topic, mended)):
        await eventually(lambda: has(beta, effects=1, dead=1))
        async with beta.database.session() as session:
            assert await redrive(session, topic=beta.topic.name) == 1
            assert await redrive(session, topic=beta.topic.name) == 0
        await eventually(lambda: has(beta, effects=2, dead=0))
        await asyncio.sleep(0.2)
    assert sorted(await beta.effects()) == [("a", 1), ("b", 2)]  # two keys: two lanes, neither before the other
    assert await letters(beta) == []
    assert await beta.fetch("SELECT 1 FROM event_attempts") == []


async def test_letter_of_another_version_has_its_effect_once_a_release_knows_that(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    newer = Topic(alpha.topic.name.removesuffix(".v1") + ".v2", Noted)
    async with alpha.events.running(), beta.events.running(notes(beta)):
        await alpha.put("key", document(alpha, type=newer.name))
        await eventually(lambda: has(beta, effects=0, dead=1))
        async with beta.database.session() as session:
            await redrive(session)
        await eventually(lambda: has(beta, effects=0, dead=1))  # nothing is mended: it dies again
    with created(newer, backbone.servers):
        next_release = beta.again(topic=newer)
        async with next_release.events.running(notes(next_release)):
            async with beta.database.session() as session:
                assert await redrive(session) == 1
            await eventually(lambda: has(beta, effects=1, dead=0))
            await asyncio.sleep(0.2)
    assert await beta.effects() == [("key", 1)]
    assert await beta.fetch("SELECT 1 FROM event_attempts") == []


async def test_letter_that_fails_again_dies_again(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    async with alpha.events.running(), beta.events.running(notes(beta)):
        await alpha.tell("a", 1, act="fail")
        await eventually(lambda: has(beta, effects=0, dead=1))
        async with beta.database.session() as session:
            await redrive(session)
        assert await letters(beta) == []
        await eventually(lambda: has(beta, effects=0, dead=1))
    (letter,) = await letters(beta)
    assert letter.attempts == QUICK.max_attempts
    assert await beta.effects() == []


async def test_event_too_large_dies_whole(backbone: Backbone) -> None:
    """Only a broker can have one: an outbox takes none."""
    if backbone.servers is None:
        pytest.skip("an outbox takes no event that is too large: see test_delivery.py")
    alpha, beta = backbone.alpha(), backbone.beta()
    content = document(alpha, data={"value": 1, "pad": "x" * 10_000_000})
    await asyncio.to_thread(send_large, os.environ["TEST_KAFKA"], alpha.topic.name, content)
    async with alpha.events.running(), beta.events.running(notes(beta)):
        await alpha.tell("key", 2)
        await eventually(lambda: has(beta, effects=1, dead=1))
        topic, key, headers, copy = await backbone.told_of_death(beta)
    (letter,) = await letters(beta)
    assert letter.size == len(content)
    assert letter.error == f"It has {len(content):,} bytes; an event has {MAX_EVENT_BYTES:,} at most."
    assert (topic, key, copy) == (beta.topic.dead, "key", b"")
    assert (headers["dead-bytes"], headers["dead-error"]) == (str(len(content)), letter.error)


def send_large(servers: str, topic: str, content: bytes) -> None:
    from kafka import KafkaAdminClient, KafkaProducer
    from kafka.admin import ConfigResource, ConfigResourceType

    admin = KafkaAdminClient(bootstrap_servers=servers)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "20000000"})])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=servers, max_request_size=20_000_000)
    producer.send(topic, key=b"key", value=content).get(timeout=30)
    producer.close()

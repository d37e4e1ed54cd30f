"""Events as a service has them of its platform, and the commands of an operator."""

import argparse
import asyncio
import gc
import os
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hunmin_contracts.errors import HunminError
from hunmin_contracts.events import TOPICS
from hunmin_contracts.schema import Empty
from hunmin_kit.events.record import Record
from hunmin_kit.run import StartError
from hunmin_kit.run.event_commands import add_events, add_topics
from hunmin_kit.run.plan import plan
from hunmin_kit.testing import Running, running
from hunmin_kit.testing.postgres import fresh_database
from kit_sample import hearing
from kit_sample.hearing import EFFECTS, TELL, TellRequest

from .conftest import LEFT_SOCKETS, eventually

Hunmin = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with fresh_database() as made:
        yield made


@pytest.fixture
async def services(url: str) -> AsyncIterator[Running]:
    async with running(hearing.SERVICE, env={"HUNMIN_DATABASE_URL": url}) as up:
        yield up


@pytest.fixture
def hunmin(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hunmin:
    """Run a subcommand in this process, where the service is installed; return its status, lines and complaint."""
    info = tmp_path / "site" / "kit_hearing-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kit-hearing\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[hunmin.services]\nhearing = kit_sample.hearing:SERVICE\n")
    monkeypatch.syspath_prepend(str(info.parent))
    monkeypatch.setenv("HUNMIN_DATABASE_URL", url)
    monkeypatch.setenv("HUNMIN_HOME", str(tmp_path / "home"))

    def act(*arguments: str) -> tuple[int, list[str], str]:
        parser = argparse.ArgumentParser()
        commands = parser.add_subparsers()
        add_topics(commands)
        add_events(commands)
        options = parser.parse_args(arguments)
        status = options.act(options)
        told = capsys.readouterr()
        complaint = [line for line in told.err.splitlines(keepends=True) if not line.startswith("{")]  # logs are JSON
        return status, told.out.splitlines(), "".join(complaint)

    return act


async def effects(services: Running) -> list[int]:
    return (await services.client("hearing").call(EFFECTS, Empty())).values


async def samples(services: Running) -> str:
    return (await services.http("hearing").get("/metrics")).text


async def test_events_of_a_request_have_their_effect_in_its_trace(services: Running) -> None:
    await services.client("hearing").call(TELL, TellRequest(value=7))
    assert await eventually(lambda: effects(services)) == [7]

    async def spans() -> Any:
        named = {span.name: span for span in services.spans("hearing")}
        return named if f"process {hearing.TOPIC.name}" in named else None

    found = await eventually(spans)
    assert found[f"process {hearing.TOPIC.name}"].context.trace_id == found["POST /v1/tell"].context.trace_id
    assert 'hunmin_events_deliveries_total{consumer="hearing.notes",outcome="handled"} 1.0' in await samples(services)


async def test_looking_for_events_is_not_traced(services: Running) -> None:
    await services.client("hearing").call(TELL, TellRequest(value=7))
    await eventually(lambda: effects(services))
    await asyncio.sleep(1)
    roots = {span.name for span in services.spans("hearing") if span.parent is None}
    assert roots == {"POST /v1/tell", "GET /v1/effects"}


async def test_two_services_of_a_process_share_its_metrics(url: str) -> None:
    async with running(hearing.SERVICE, env={"HUNMIN_DATABASE_URL": url}) as services:
        platform = services.platform("hearing")
        platform.events()
        platform.events()
        assert "hunmin_events_outbox_rows" in await samples(services)


@pytest.mark.parametrize("servers", ["kafka", "kafka:port", "a:1,,b:2", "a:1, b:2", ""])
def test_servers_are_hosts_and_ports(servers: str) -> None:
    with pytest.raises(StartError, match="HUNMIN_KAFKA_SERVERS is not valid: it is written as host:port"):
        plan([hearing.SERVICE], {"HUNMIN_KAFKA_SERVERS": servers})
    for right in ("kafka:9092", "a.b-c:1,10.0.0.1:9092"):
        assert plan([hearing.SERVICE], {"HUNMIN_KAFKA_SERVERS": right}).platform.kafka_servers == right


async def test_operator_lists_and_redrives_dead_letters(services: Running, hunmin: Hunmin) -> None:
    assert await asyncio.to_thread(hunmin, "events", "dead", "list") == (0, ["There are no dead letters."], "")
    await services.client("hearing").call(TELL, TellRequest(value=1, act="garble"))

    async def dead() -> list[str] | None:
        _, lines, _ = await asyncio.to_thread(hunmin, "events", "dead", "list", "--topic", hearing.TOPIC.name)
        return lines if len(lines) == 2 else None

    head, error = await eventually(dead)
    assert head.startswith("hearing/1  ")
    assert "hearing.notes  hunmin.hearing.note.v1  key 'key'  1 bytes  1 attempts" in head
    assert error.startswith("    It is not valid.")
    status, lines, _ = await asyncio.to_thread(hunmin, "events", "dead", "redrive", "hearing/1")
    assert (status, lines) == (0, ["1 redriven: their consumers try them now."])
    await eventually(dead)  # it is no better than before
    status, lines, _ = await asyncio.to_thread(hunmin, "events", "dead", "redrive", "--all")
    assert (status, lines) == (0, ["1 redriven: their consumers try them now."])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "hunmin: Name the letters to redrive, or --topic TOPIC, or --all: one of the three."),
        (["--all", "--topic", "t"], "hunmin: Name the letters to redrive, or --topic TOPIC, or --all"),
        (["hearing"], "hunmin: 'hearing' is no letter. `hunmin events dead list` names them"),
        (["hearing/9"], "hunmin: 0 redriven; the others are no dead letters."),
        (["nobody/1"], "hunmin: 0 redriven; the others are no dead letters."),
    ],
)
async def test_redrive_that_names_nothing_says_so(
    services: Running, hunmin: Hunmin, arguments: list[str], said: str
) -> None:
    status, lines, complaint = await asyncio.to_thread(hunmin, "events", "dead", "redrive", *arguments)
    assert (status, lines) == (2, [])
    assert complaint.startswith(said)


async def test_topics_are_created_once(servers: str | None, hunmin: Hunmin, monkeypatch: pytest.MonkeyPatch) -> None:
    if servers is None:
        _, (line,), _ = await asyncio.to_thread(hunmin, "topics")
        assert line.startswith("HUNMIN_KAFKA_SERVERS is not set: events are read from PostgreSQL")
        return
    monkeypatch.setenv("HUNMIN_KAFKA_SERVERS", servers)
    status, lines, _ = await asyncio.to_thread(hunmin, "topics")
    assert status == 0
    declared = {name for topic in TOPICS for name in (topic.name, topic.dead)}
    assert set(lines) <= {f"Created {name}." for name in declared} | {"Every topic is there."}
    assert await asyncio.to_thread(hunmin, "topics") == (0, ["Every topic is there."], "")


async def test_brokers_learn_who_we_are(hunmin: Hunmin, monkeypatch: pytest.MonkeyPatch) -> None:
    known = os.environ.get("TEST_KAFKA_KNOWN")
    if known is None:
        pytest.skip("needs a broker that asks who comes: set TEST_KAFKA_KNOWN=user:password@host:port")
    found = urlsplit(f"kafka://{known}")
    monkeypatch.setenv("HUNMIN_KAFKA_SERVERS", f"{found.hostname}:{found.port}")
    monkeypatch.setenv("HUNMIN_KAFKA_SASL_MECHANISM", "PLAIN")
    monkeypatch.setenv("HUNMIN_KAFKA_USER", str(found.username))
    monkeypatch.setenv("HUNMIN_KAFKA_PASSWORD", str(found.password))
    assert (await asyncio.to_thread(hunmin, "topics"))[0] == 0
    monkeypatch.setenv("HUNMIN_KAFKA_PASSWORD", "another")
    status, _, complaint = await asyncio.to_thread(hunmin, "topics")
    assert status == 2
    assert "check HUNMIN_KAFKA_USER and HUNMIN_KAFKA_PASSWORD" in complaint


@pytest.mark.parametrize("given", ["USER", "PASSWORD"])
def test_a_user_and_a_password_go_together(given: str) -> None:
    with pytest.raises(StartError, match=r"HUNMIN_KAFKA_PASSWORD is not valid: it goes with HUNMIN_KAFKA_USER"):
        plan([hearing.SERVICE], {f"HUNMIN_KAFKA_{given}": "x"})


async def test_broker_that_is_not_there_is_one_line(hunmin: Hunmin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUNMIN_KAFKA_SERVERS", "127.0.0.1:1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # kafka-python leaves the sockets of a failed start to gc
        status, _, complaint = await asyncio.to_thread(hunmin, "topics")
        gc.collect()
    assert (status, complaint.count("\n")) == (2, 1)
    assert complaint.startswith("hunmin: Kafka at 127.0.0.1:1 cannot be used")


async def test_clients_that_cannot_start_leave_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    from hunmin_kit.events import kafka_bus

    monkeypatch.setattr(kafka_bus, "_CONNECT_MS", 300)
    bus, before = kafka_bus.KafkaBus(kafka_bus.Cluster(servers="127.0.0.1:1")), set(threading.enumerate())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", LEFT_SOCKETS, ResourceWarning)
        async with bus.reader("beta.notes", "hunmin.alpha.note.v1") as reader:
            for asked in (
                reader.read(),
                bus.publish([Record("hunmin.alpha.note.v1", "key", b"{}", {})]),
                reader.read(),
            ):
                with pytest.raises(HunminError):
                    await asked
        await bus.close()
        gc.collect()
    assert [thread.name for thread in set(threading.enumerate()) - before if "kafka-io" in thread.name] == []

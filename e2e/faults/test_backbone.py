"""Everything is killed in turn under load: gateway, generation with its relay, Kafka, PostgreSQL. Nothing is lost.

Kafka is a broker of our own here, so Java and Maven are needed.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from auditor import Auditor, LocalRecords, check, check_order
from load import CLIENTS, Load, went_on
from servers.java import missing_tools
from servers.kafka_broker import KafkaBroker
from studio_process import StudioProcess, model_environ, new_key, studio_process

SETTLED_WITHIN_S = 180
pytestmark = [
    pytest.mark.skipif(bool(missing_tools()), reason=f"needs {', '.join(missing_tools())} to run a Kafka broker"),
    pytest.mark.skipif("E2E_URL" in os.environ, reason="the processes of a studio elsewhere are not ours to kill"),
]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    made = KafkaBroker(tmp_path / "kafka")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def studio(broker: KafkaBroker, model_folder: Path, tmp_path: Path) -> Iterator[StudioProcess]:
    environ = model_environ(model_folder) | {
        "HUNMIN_KAFKA_SERVERS": broker.servers,
        "HUNMIN_GATEWAY_LOST_AFTER_S": "20",
        "HUNMIN_STREAM_DEADLINE_S": "19",
        "HUNMIN_GATEWAY_QUOTA_LEASE_S": "15",
    }
    hunmin(["topics"], environ | {"HUNMIN_HOME": str(tmp_path / "home")})
    process = StudioProcess(tmp_path / "home", new_key(), one_process=False, environ=environ)
    with studio_process(process):
        limit = ["quotas", "set", "default", "tokens_per_month", "1000000000"]
        hunmin(limit, {"HUNMIN_HOME": str(process.home)})
        yield process


def hunmin(arguments: list[str], environ: dict[str, str]) -> None:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("HUNMIN_")}
    command = [str(Path(sys.executable).with_name("hunmin")), *arguments]
    subprocess.run(command, env=outside | environ, check=True, capture_output=True)


def kill_postgres(studio: StudioProcess) -> None:
    """End the database server at once; the studio that embeds it starts it again."""
    pid_file = studio.home / "postgres" / "data" / "postmaster.pid"
    server = psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))
    for process in [server, *server.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)


def given_up(studio: StudioProcess) -> list[str]:
    """Return what the services told of writes that they have tried for too long: a ledger may lack these."""
    lines = studio.log.read_text(errors="replace").splitlines()
    return [line for line in lines if "generation.usage.lost" in line or "usage.row.lost" in line]


@pytest.mark.timeout(900)
def test_whatever_is_killed_under_load_the_ledger_is_the_engines_count(
    studio: StudioProcess, broker: KafkaBroker
) -> None:
    seed = time.time_ns() % 100_000
    rng = random.Random(seed)  # noqa: S311  # a schedule, no secret
    kills = ["kafka"] * 5 + ["gateway", "generation", "postgres"] * 2
    rng.shuffle(kills)
    generation_killed_s = []
    with Load(studio.url, studio.key, seed).running() as load:
        went_on(load)
        for kill in kills:
            time.sleep(rng.uniform(0.5, 3))
            if kill == "kafka":
                broker.kill()
                time.sleep(rng.uniform(0, 3))
                broker.start()
            elif kill == "postgres":
                kill_postgres(studio)
            else:
                studio.kill_one(kill)
                if kill == "generation":
                    generation_killed_s.append(time.time())
                studio.start_one(kill)
            went_on(load)
    auditor = Auditor(LocalRecords(studio.home, broker.servers))
    auditor.wait_until_settled(within_s=SETTLED_WITHIN_S)
    found = check(auditor, load.answers, generation_killed_s=generation_killed_s, clients=CLIENTS)
    print(seed, kills, found, f"{len(load.failures)} failed")
    assert given_up(studio) == []
    assert found["answers"] > 0 < found["events"]


@pytest.mark.timeout(900)
def test_requests_go_on_without_kafka_and_the_outbox_drains_in_the_order_of_keys(
    studio: StudioProcess, broker: KafkaBroker
) -> None:
    auditor = Auditor(LocalRecords(studio.home, broker.servers))
    with Load(studio.url, studio.key, 7).running() as load:
        went_on(load)
        broker.kill()
        away_since = time.monotonic()
        while time.monotonic() - away_since < 120:
            went_on(load)
            time.sleep(1)
        committed = auditor.committed()
        broker.start()
        went_on(load)
    assert load.failures == []  # those that were left are none
    auditor.wait_until_settled(within_s=SETTLED_WITHIN_S)
    found = check(auditor, load.answers)
    several = check_order(auditor.messages(), committed)
    print(found, f"{len(committed)} keys waited, {several} with several events")
    assert several > 0
    assert given_up(studio) == []

"""Everything is killed in turn under load: gateway, generation with its relay, Kafka, PostgreSQL. Nothing is lost.

Kafka is a broker of our own here, so Java and Maven are needed.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from auditor import Answer, Auditor, check
from servers.java import missing_tools
from servers.kafka_broker import KafkaBroker
from studio_process import StudioProcess, model_environ, new_key, studio_process

CLIENTS = 6
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


class Load:
    """Clients that ask without pause: for whole answers, for streams, and for streams that they leave."""

    def __init__(self, studio: StudioProcess, seed: int) -> None:
        self._studio = studio
        self._seed = seed
        self._is_over = threading.Event()
        self.answers: list[Answer] = []

    @contextmanager
    def running(self) -> Iterator["Load"]:
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join(120)
                assert not thread.is_alive(), "a request never ended"

    def _ask(self, client: int) -> None:
        rng = random.Random(f"{self._seed} {client}")  # noqa: S311  # a schedule, no secret
        headers = {"Authorization": f"Bearer {self._studio.key}"}
        with httpx.Client(base_url=self._studio.url, headers=headers, timeout=60) as http:
            for number in range(100_000):
                if self._is_over.is_set():
                    return
                request_id = f"{self._seed}-{client}-{number}"
                how = rng.choice(["whole", "stream", "left"])
                try:
                    tokens = ask(http, request_id, how, rng.randint(1, 12))
                except httpx.HTTPError:
                    tokens = None
                    time.sleep(0.1)
                self.answers.append(Answer(request_id, tokens))


def ask(http: httpx.Client, request_id: str, how: str, leave_after: int) -> int | None:
    """Return the tokens of a whole answer, None of any other."""
    body = {"model": "starter", "prompt": "이 영화는", "max_tokens": 24}
    headers = {"x-request-id": request_id}
    if how == "whole":
        answer = http.post("/v1/completions", json=body, headers=headers)
        answer.raise_for_status()
        return int(answer.json()["usage"]["total_tokens"])
    usage, seen = None, 0
    streamed = body | {"stream": True, "stream_options": {"include_usage": True}}
    with http.stream("POST", "/v1/completions", json=streamed, headers=headers) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            seen += line.startswith("data: ")
            if how == "left" and seen >= leave_after:
                return None
            if line == "data: [DONE]":
                return usage
            if line.startswith("data: ") and (told := json.loads(line[6:]).get("usage")):
                usage = int(told["total_tokens"])
    return None


def kill_postgres(studio: StudioProcess) -> None:
    """End the database server at once; the studio that embeds it starts it again."""
    pid_file = studio.home / "postgres" / "data" / "postmaster.pid"
    server = psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))
    for process in [server, *server.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)


def went_on(load: Load, count: int = 5) -> None:
    """Wait until so many more answers have come."""
    begin, deadline = sum(one.tokens is not None for one in load.answers), time.monotonic() + 90
    while sum(one.tokens is not None for one in load.answers) < begin + count:
        assert time.monotonic() < deadline, "no answers come any more"
        time.sleep(0.2)


@pytest.mark.timeout(900)
def test_whatever_is_killed_under_load_the_ledger_is_the_engines_count(
    studio: StudioProcess, broker: KafkaBroker
) -> None:
    seed = time.time_ns() % 100_000
    rng = random.Random(seed)  # noqa: S311  # a schedule, no secret
    kills = ["kafka"] * 5 + ["gateway", "generation", "postgres"] * 2
    rng.shuffle(kills)
    with Load(studio, seed).running() as load:
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
                studio.start_one(kill)
            went_on(load)
    auditor = Auditor(studio.home, broker.servers)
    auditor.wait_until_settled(within_s=SETTLED_WITHIN_S)
    found = check(auditor, load.answers, kills=len(kills), clients=CLIENTS)
    print(seed, kills, found)
    assert found["answers"] > 0 < found["events"]


@pytest.mark.timeout(900)
def test_requests_go_on_without_kafka_and_the_outbox_drains_in_the_order_of_keys(
    studio: StudioProcess, broker: KafkaBroker
) -> None:
    auditor = Auditor(studio.home, broker.servers)
    with Load(studio, 7).running() as load:
        went_on(load)
        broker.kill()
        away_since = time.monotonic()
        while time.monotonic() - away_since < 120:
            went_on(load)
            time.sleep(1)
        broker.start()
        went_on(load)
    assert sum(one.tokens is None for one in load.answers) < len(load.answers) / 2  # those that were left
    auditor.wait_until_settled(within_s=SETTLED_WITHIN_S)
    found = check(auditor, load.answers, kills=0, clients=CLIENTS)
    print(found)
    last: dict[str, str] = {}
    for event in auditor.told():
        assert last.get(event["subject"], "") <= event["time"], "a key's events are out of order"
        last[event["subject"]] = event["time"]

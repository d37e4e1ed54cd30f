"""`make bench-gateway`: what authentication, quota and ledger cost, before an engine that always takes the same time.

The baseline is a bare FastAPI echo on the same server, which waits as long as the engine. Alternating, medians.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from gateway_load import Load, load
from report import Target, report

sys.path.insert(0, str(Path(__file__).parents[1]))
from studio_process import free_ports, new_key

WAIT_S = 0.005
GATEWAYS = 2
MOST_ADDED_MS, LEAST_PER_S = 3, 500
_BODY = '{"model": "parrot", "prompt": "이 영화는", "max_tokens": 8}'.encode()
_HUNMIN = "from hunmin_command import main; main()"
LIMITS = ("requests_per_minute", "tokens_per_minute", "tokens_per_month", "concurrent_requests")


def request(key: str) -> bytes:
    """Return what every client sends."""
    head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(_BODY)}\r\n\r\n".encode() + _BODY


@contextmanager
def running(*command: str, environ: dict[str, str] | None = None) -> Iterator[None]:
    """Run a process while the block lasts."""
    process = subprocess.Popen([sys.executable, *command], env=environ, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def stub(name: str, port: int) -> tuple[str, ...]:
    """Return the command of one of gateway_stub.py."""
    return (str(Path(__file__).with_name("gateway_stub.py")), name, str(port), str(WAIT_S))


def environ(home: str, key: str, engine: int) -> dict[str, str]:
    """Return the variables of every gateway."""
    others = {f"HUNMIN_{name}_URL": f"http://127.0.0.1:{engine}" for name in ("GENERATION", "TOKENIZER", "TUNING")}
    own = {"HUNMIN_HOME": home, "HUNMIN_GATEWAY_BOOTSTRAP_KEY": key, "HUNMIN_LOG_LEVEL": "ERROR"}
    outside = {name: value for name, value in os.environ.items() if not name.startswith("HUNMIN_")}
    return outside | others | own


def wait_for(port: int, path: str) -> None:
    """Return when that answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing answered on port {port}")
        time.sleep(0.1)


def set_limits(variables: dict[str, str]) -> None:
    """Give the account every kind of limit, and room in each."""
    for name in LIMITS:
        command = [sys.executable, "-c", _HUNMIN, "quotas", "set", "default", name, "1000000000"]
        subprocess.run(command, env=variables, check=True, stdout=subprocess.DEVNULL)


async def measure(gateways: list[int], echo: int, key: str, *, rounds: int, for_s: float) -> dict[str, list[Load]]:
    """Return what each round found, by what was measured."""
    found: dict[str, list[Load]] = {"ours 1": [], "echo 1": [], "ours 32": [], "echo 32": []}
    asked = request(key)
    await load(gateways, asked, clients=32, for_s=for_s)
    for _ in range(rounds):
        for clients in (1, 32):
            found[f"echo {clients}"].append(await load([echo], asked, clients=clients, for_s=for_s))
            found[f"ours {clients}"].append(await load(gateways, asked, clients=clients, for_s=for_s))
    return found


def main() -> None:
    """Start everything, measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    options = parser.parse_args()
    key = new_key()
    engine, echo, *gateways = free_ports(2 + GATEWAYS)
    with ExitStack() as stack:
        variables = environ(stack.enter_context(tempfile.TemporaryDirectory()), key, engine)
        stack.enter_context(running(*stub("engine", engine)))
        stack.enter_context(running(*stub("echo", echo)))
        for port in gateways:
            own = variables | {"HUNMIN_GATEWAY_PORT": str(port)}
            stack.enter_context(running("-c", _HUNMIN, "run", "gateway", environ=own))
            wait_for(port, "/readyz")
        set_limits(variables)
        wait_for(echo, "/docs")
        found = asyncio.run(measure(gateways, echo, key, rounds=options.rounds, for_s=options.seconds))
    finish(found)


def finish(found: dict[str, list[Load]]) -> None:
    """Print and write the metrics."""

    def median(what: str, figure: str) -> float:
        return statistics.median(getattr(each, figure) for each in found[what])

    ours, bare = median("ours 1", "median_ms"), median("echo 1", "median_ms")
    many, most = median("ours 32", "requests_per_s"), median("echo 32", "requests_per_s")
    metrics = {
        "latency_1_client": {
            "ours": round(ours, 2),
            "baseline": round(bare, 2),
            "ratio": round(ours / bare, 2),
            "unit": "ms",
            "added": round(ours - bare, 2),
        },
        "throughput_32_clients": {
            "ours": round(many, 1),
            "baseline": round(most, 1),
            "ratio": round(many / most, 3),
            "unit": "request/s",
            "p95_ms": round(median("ours 32", "p95_ms"), 1),
        },
    }
    for name, metric in metrics.items():
        print(name, metric)
    report(
        "gateway",
        metrics,
        [
            Target("latency_1_client", figure="added", most=MOST_ADDED_MS),
            Target("throughput_32_clients", figure="ours", least=LEAST_PER_S),
        ],
    )


if __name__ == "__main__":
    main()

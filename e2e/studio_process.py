"""A studio as its operator runs it: processes, a home folder, ports. For the e2e tests and the demo.

What a test may know of it is a URL and a key.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
STARTER = REPOSITORY / "training" / "models" / "starter"
SERVICES = ("tokenizer", "generation", "tuning", "gateway")  # in the order of their needs
START_TIMEOUT_S = 90  # a first start on a busy machine makes a database and loads a model
STOP_TIMEOUT_S = 45


@dataclass
class StudioProcess:
    """One studio, started as often as one likes on the same `home`.

    In one process it is `hunmin run all`, with the gateway's port alone open; else a process per service, which reach
    each other over the network.
    """

    home: Path
    key: str
    one_process: bool
    model: str = "starter"
    environ: Mapping[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=lambda: dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True)))
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the gateway answers."""
        return f"http://127.0.0.1:{self.ports['gateway']}"

    @property
    def log(self) -> Path:
        """What all processes wrote."""
        return self.home / "e2e.log"

    def start(self) -> float:
        """Start it; return the seconds until every open port was ready."""
        self.home.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        if "HUNMIN_KAFKA_SERVERS" in self.environ:
            self.hunmin("topics")
        for name in ("all",) if self.one_process else SERVICES:
            self._processes.append(self._new_process(name))
        opened = ("gateway",) if self.one_process else SERVICES
        deadline = started + START_TIMEOUT_S
        for name in opened:
            self._wait_until_ready(name, deadline)
        return time.monotonic() - started

    def hunmin(self, *arguments: str) -> str:
        """Run a command of the operator's, which reads the same settings; return what it printed."""
        command = [str(Path(sys.executable).with_name("hunmin")), *arguments]
        done = subprocess.run(command, env=self._environ(), cwd=self.home, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"hunmin {' '.join(arguments)} failed:\n{done.stderr}")
        return done.stdout

    def kill_one(self, service: str) -> None:
        """End the process of one service at once, where each has its own."""
        process = self._processes[SERVICES.index(service)]
        process.kill()
        process.wait(STOP_TIMEOUT_S)

    def start_one(self, service: str) -> None:
        """Start it again."""
        self._processes[SERVICES.index(service)] = self._new_process(service)
        self._wait_until_ready(service, time.monotonic() + START_TIMEOUT_S)

    def stop(self) -> list[int]:
        """Ask every process to end, the gateway first; return their exit codes."""
        codes = []
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            codes.append(process.wait(STOP_TIMEOUT_S))
        self._processes.clear()
        return codes

    def kill(self) -> None:
        """End everything at once, the database server too, as a machine that loses power does."""
        pid_file = self.home / "postgres" / "data" / "postmaster.pid"
        postmaster = psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))
        for process in reversed(self._processes):
            os.killpg(process.pid, signal.SIGKILL)
        for process_of_server in [postmaster, *postmaster.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process_of_server.kill()
        for process in self._processes:
            process.wait(STOP_TIMEOUT_S)
        self._processes.clear()

    def memory(self) -> list[int]:
        """Return how many bytes each of its processes holds; the database's are not among them."""
        return [psutil.Process(process.pid).memory_info().rss for process in self._processes]

    def _new_process(self, name: str) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).with_name("hunmin")), "run", name]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, env=self._environ(), cwd=self.home, stdout=log, stderr=log, start_new_session=True
            )

    def _environ(self) -> dict[str, str]:
        outside = {name: value for name, value in os.environ.items() if not name.startswith("HUNMIN_")}
        own = {"HUNMIN_HOME": str(self.home), "HUNMIN_GATEWAY_BOOTSTRAP_KEY": self.key}
        for name, port in self.ports.items():
            own[f"HUNMIN_{name.upper()}_PORT"] = str(port)
            if not self.one_process and name != "gateway":
                own[f"HUNMIN_{name.upper()}_URL"] = f"http://127.0.0.1:{port}"
        return outside | own | dict(self.environ)

    def _wait_until_ready(self, name: str, deadline: float) -> None:
        while True:
            if any(process.poll() is not None for process in self._processes):
                raise RuntimeError(f"a process ended while starting:\n{self.tail()}")
            try:
                url = f"http://127.0.0.1:{self.ports[name]}/readyz"
                if httpx.get(url, timeout=5, verify=False).status_code == 200:  # noqa: S501  # plain HTTP
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} was not ready after {START_TIMEOUT_S} s:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])


@contextmanager
def studio_process(process: StudioProcess) -> Iterator[StudioProcess]:
    """Start `process`, and end it however the block ends."""
    try:
        process.start()
        yield process
    finally:
        process.stop()


def new_key() -> str:
    """Return a fresh key, made as an operator makes one."""
    command = [str(Path(sys.executable).with_name("hunmin")), "keys", "new"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def model_environ(folder: Path) -> dict[str, str]:
    """Return the variables that make a studio serve the model in `folder` under the starter's name."""
    models = json.dumps({"starter": str(folder)})
    return {"HUNMIN_GENERATION_MODELS": models, "HUNMIN_TOKENIZER_MODELS": models, "HUNMIN_TUNING_MODELS": models}


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on at present."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()

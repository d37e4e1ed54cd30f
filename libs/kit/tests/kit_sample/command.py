"""The command `hunmin` in a process of its own."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class Command:
    """A running `hunmin`."""

    def __init__(self, arguments: list[str], env: dict[str, str], log: Path) -> None:
        self.log = log
        self.ports = {name: int(env[f"HUNMIN_{name.upper()}_PORT"]) for name in ("echo", "front")}
        program = [sys.executable, "-c", "from hunmin_command import main; main()"]
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [*program, *arguments], env=env, stdout=subprocess.PIPE, stderr=stderr, text=True
            )

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def line(self, event: str) -> dict[str, Any]:
        """Wait for the first log line of that event, and return it."""
        deadline = time.monotonic() + 60
        while True:
            for line in self.events():
                if line["event"] == event:
                    return line
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def ready(self) -> "Command":
        """Wait until every port is open."""
        self.line("process.ready")
        return self

    def stop(self) -> int:
        """Ask for the end, and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]

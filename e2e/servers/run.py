"""Run a command beside real servers: `python e2e/servers/run.py COMMAND…`.

It finds them in TEST_KAFKA=host:port and TEST_KAFKA_KNOWN=user:password@host:port (of one that asks who comes),
TEST_S3=http://KEY:SECRET@host:port/BUCKET, and TEST_KEYCLOAK=http://host:port with TEST_KEYCLOAK_ADMIN=user:password.
A server that the environment names already is used, and none is started; where Java or Maven is missing, or Maven
cannot bring a server, it says so, and the tests are skipped. The servers end when the command does.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers.java import NotBrought, missing_tools
from servers.kafka_broker import KafkaBroker
from servers.keycloak_server import KeycloakServer
from servers.s3_server import S3Server


class Server(Protocol):
    """One of them. `environ` is its part of the environment."""

    @property
    def environ(self) -> dict[str, str]: ...
    def start(self, *, wait: bool = True) -> None: ...
    def wait(self) -> None: ...
    def stop(self) -> None: ...


_SERVERS: dict[str, Callable[[Path], Server]] = {
    "TEST_KEYCLOAK": KeycloakServer,  # first, since it takes longest
    "TEST_KAFKA": KafkaBroker,
    "TEST_S3": S3Server,
}
_SLOW = {"TEST_KEYCLOAK"}  # its tests wait for it, and nobody else does


def main(command: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))  # so that the servers end too
    wanted = [name for name in _SERVERS if name not in os.environ]
    missing = missing_tools()
    if wanted and missing:
        print(
            f"servers: without {' and '.join(missing)} none is started for {', '.join(wanted)}: tests are skipped",
            flush=True,
        )
        wanted = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hunmin-servers-")))
        servers = {}
        for name in wanted:
            try:
                servers[name] = _SERVERS[name](folder / name.lower())
            except NotBrought as error:
                print(f"servers: {error}: none is started for {name}: tests are skipped", flush=True)
        for server in servers.values():
            stack.callback(server.stop)
            server.start(wait=False)
        for name, server in servers.items():
            if name not in _SLOW:
                server.wait()
        found = {variable: value for server in servers.values() for variable, value in server.environ.items()}
        return _run(command, {**os.environ, **found})


def _run(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run it to its end, which it also finds in its own way when somebody ends us: as by Ctrl-C."""
    process: subprocess.Popen[bytes] | None = None

    def end(number: int, _: object) -> None:
        # A terminal sends Ctrl-C to the command as well.
        if process is not None and number != signal.SIGINT:
            process.send_signal(signal.SIGINT)

    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, end)
    process = subprocess.Popen(command, env=environ)
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

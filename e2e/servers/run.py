"""Run a command beside real servers: `python e2e/servers/run.py COMMAND…`.

It finds them in TEST_KAFKA=host:port, TEST_S3=http://KEY:SECRET@host:port/BUCKET, and TEST_KEYCLOAK=http://host:port
with TEST_KEYCLOAK_ADMIN=user:password. A server that the environment names already is used, and none is started; where
Java or Maven is missing none can be, and their tests are skipped.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers.java import missing_tools
from servers.kafka_broker import KafkaBroker
from servers.keycloak_server import KeycloakServer
from servers.s3_server import BUCKET, S3Server


def keycloak(folder: Path, stack: ExitStack) -> dict[str, str]:
    """Start a Keycloak; return its part of the environment."""
    server = KeycloakServer(folder)
    server.start()
    stack.callback(server.stop)
    return server.environ


def kafka(folder: Path, stack: ExitStack) -> dict[str, str]:
    """Start a broker; return its part of the environment."""
    broker = KafkaBroker(folder)
    stack.callback(broker.stop)
    broker.start()
    return {"TEST_KAFKA": broker.servers}


def s3(folder: Path, stack: ExitStack) -> dict[str, str]:
    """Start an S3 server; return its part of the environment."""
    server = S3Server(folder)
    stack.callback(server.stop)
    server.start()
    return {"TEST_S3": server.url.replace("://", f"://{server.key}:{server.secret}@") + f"/{BUCKET}"}


_SERVERS: dict[str, Callable[[Path, ExitStack], dict[str, str]]] = {
    "TEST_KAFKA": kafka,
    "TEST_S3": s3,
    "TEST_KEYCLOAK": keycloak,
}


def main() -> int:
    """Run the command; return its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the servers end too
    wanted = {name: start for name, start in _SERVERS.items() if name not in os.environ}
    missing = missing_tools()
    if wanted and missing:
        print(f"servers: without {' and '.join(missing)} none is started for {', '.join(wanted)}: tests are skipped")
        wanted = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hunmin-servers-")))
        found: dict[str, str] = {}
        for name, start in wanted.items():
            found |= start(folder / name.lower(), stack)
        return subprocess.run(sys.argv[1:], check=False, env={**os.environ, **found}).returncode


if __name__ == "__main__":
    sys.exit(main())

"""Run a command beside real servers: `python e2e/servers/run.py COMMAND…`.

It finds them in TEST_KAFKA=host:port and TEST_S3=http://KEY:SECRET@host:port/BUCKET. A server that the environment
names already is used, and none is started; where Java or Maven is missing none can be, and their tests are skipped.
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
from servers.s3_server import BUCKET, S3Server


def kafka(folder: Path, stack: ExitStack) -> str:
    """Start a broker; return its value for the environment."""
    broker = KafkaBroker(folder)
    stack.callback(broker.stop)
    broker.start()
    return broker.servers


def s3(folder: Path, stack: ExitStack) -> str:
    """Start an S3 server; return its value for the environment."""
    server = S3Server(folder)
    stack.callback(server.stop)
    server.start()
    return server.url.replace("://", f"://{server.key}:{server.secret}@") + f"/{BUCKET}"


_SERVERS: dict[str, Callable[[Path, ExitStack], str]] = {"TEST_KAFKA": kafka, "TEST_S3": s3}


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
        found = {name: start(folder / name.lower(), stack) for name, start in wanted.items()}
        return subprocess.run(sys.argv[1:], check=False, env={**os.environ, **found}).returncode


if __name__ == "__main__":
    sys.exit(main())

"""A Keycloak for tests, by the scripts beside it. It keeps its data in memory: each start is a new one."""

import subprocess
from pathlib import Path

_SCRIPTS = Path(__file__).parent / "keycloak"


class KeycloakServer:
    """One server on a free port; its log is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.environ: dict[str, str] = {}  # what tests read: TEST_KEYCLOAK, TEST_KEYCLOAK_ADMIN

    def start(self) -> None:
        """Start it, and wait until it answers; the first time on a machine it is fetched and built."""
        done = subprocess.run([_SCRIPTS / "start", self._folder], check=True, stdout=subprocess.PIPE, text=True)
        self.environ = dict(line.split("=", 1) for line in done.stdout.splitlines())

    def stop(self) -> None:
        """End it."""
        subprocess.run([_SCRIPTS / "stop", self._folder], check=True)

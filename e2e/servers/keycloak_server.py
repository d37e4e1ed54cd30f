"""A Keycloak on a port of its own. It keeps its data in memory: each start is a new one."""

import secrets
from pathlib import Path

from servers.java import Process, unpacked
from studio_process import free_ports

VERSION = "26.7.3"
_ARCHIVE = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
_USER = "admin"


def distribution() -> Path:
    """Return the folder of Keycloak as it is shipped."""
    return unpacked(_ARCHIVE, label="-as-shipped") / f"keycloak-{VERSION}"


class KeycloakServer:
    """A server whose log lies in `folder`. `environ` is what tests read."""

    def __init__(self, folder: Path) -> None:
        (port,) = free_ports(1)
        url, password = f"http://127.0.0.1:{port}", secrets.token_urlsafe(24)
        self.environ = {"TEST_KEYCLOAK": url, "TEST_KEYCLOAK_ADMIN": f"{_USER}:{password}"}
        folder.mkdir(parents=True, exist_ok=True)
        # Built once, and not at each start: that is half of the time.
        script = f"keycloak-{VERSION}/bin/kc.sh"
        home = unpacked(_ARCHIVE, ["bash", f"{{}}/{script}", "build", "--db=dev-mem"])
        listening = ["--http-enabled=true", "--http-host=127.0.0.1", f"--http-port={port}", f"--hostname={url}"]
        own = {
            "KC_BOOTSTRAP_ADMIN_USERNAME": _USER,
            "KC_BOOTSTRAP_ADMIN_PASSWORD": password,
            "JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx512m",
        }
        command = ["bash", str(home / script), "start", "--optimized", *listening]
        self._process = Process(command, port=port, log=folder / "keycloak.log", environ=own)

    def start(self, *, wait: bool = True) -> None:
        """Start it. It takes a minute: `hunmin_kit.testing.keycloak` waits for it where a test needs it."""
        self._process.start(wait=wait)

    def wait(self) -> None:
        """Return once it answers."""
        self._process.wait()

    def stop(self) -> None:
        """End it."""
        self._process.stop()

"""Servers that are Java programs: their jars, brought once by Maven, and one process each."""

import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hunmin-servers"
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30


class NotBrought(Exception):
    """What a server is made of cannot be had here."""


def missing_tools() -> list[str]:
    """Return what this machine lacks to run such servers."""
    return [tool for tool in ("java", "mvn") if shutil.which(tool) is None]


def jars(pom: Path) -> Path:
    """Return the folder of the jars that `pom` names; they are fetched once for each content of it."""
    name = f"{pom.parent.name}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    arguments = ["-f", str(pom), f"{_DEPENDENCIES}:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory={}"]
    return cached(name, [*_MAVEN, *arguments])


def unpacked(artifact: str, *commands: Sequence[str], label: str = "") -> Path:
    """Return the folder of the archive `artifact`, unpacked once; `commands` were run on it, `{}` being the folder.

    With other commands it has another label.
    """
    _, name, version, kind = artifact.split(":")
    archive = f"{{}}/{name}-{version}.{kind}"
    bring = [*_MAVEN, f"{_DEPENDENCIES}:copy", f"-Dartifact={artifact}", "-DoutputDirectory={}"]
    unpack = [sys.executable, "-m", "zipfile", "-e", archive, "{}"]
    return cached(f"{name}-{version}{label}", bring, unpack, ["rm", archive], *commands)


_MAVEN = ("mvn", "-B", "-q", "-Dstyle.color=never")
_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


def cached(name: str, *commands: Sequence[str]) -> Path:
    """Return the folder `name` of the cache; `commands` fill `{}` if it is not there, in one process of several.

    Raises NotBrought.
    """
    folder = CACHE / name
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = CACHE / f"{name}.new"
            shutil.rmtree(unfinished, ignore_errors=True)
            sys.stderr.write(f"servers: bringing {name} into {CACHE}\n")
            for command in commands:
                code = subprocess.run([part.replace("{}", str(unfinished)) for part in command]).returncode
                if code != 0:
                    raise NotBrought(f"{name} could not be brought: {command[0]} ended with {code}")
            unfinished.rename(folder)
    return folder


class Process:
    """A server's process, which may be killed and started again on the same files."""

    def __init__(
        self, command: Sequence[str], *, port: int, log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self._command = list(command)
        self._port = port
        self._log = log
        self._environ = None if environ is None else {**os.environ, **environ}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until its port is open."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environ, start_new_session=True
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Return once its port is open; raise if it ends, or takes too long."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_open(self._port):
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._command[0]} did not start; see {self._log}:\n{self._tail()}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it at once, as a machine that loses power does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])


def java(classpath: Path, main: str, *arguments: str, heap_mb: int, options: Sequence[str] = ()) -> list[str]:
    """Return the command that runs `main`: small, and quick to start rather than to run for long."""
    quick = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Xmx{heap_mb}m"]
    return ["java", *quick, *options, "-cp", f"{classpath}/*", main, *arguments]


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0

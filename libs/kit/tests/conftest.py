"""Makes the sample services importable here, and runnable by the command `hunmin` in processes of their own."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from kit_sample.command import Command, free_port  # noqa: E402  # needs the path above

ENTRY_POINTS = "[hunmin.services]\necho = kit_sample.echo:SERVICE\nfront = kit_sample.front:SERVICE\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder that makes the sample services installed ones, where it is on the path."""
    info = tmp_path / "site" / "kit_sample-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kit-sample\nVersion: 0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return info.parent


@pytest.fixture
def hunmin(tmp_path: Path, site: Path) -> Iterator[Callable[..., Command]]:
    """Start `hunmin` with these arguments, in a fresh home and on free ports unless `env` says otherwise."""
    started: list[Command] = []

    def start(*arguments: str, **env: str) -> Command:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HUNMIN_")}
        defaults = {
            "PYTHONPATH": os.pathsep.join([str(HERE), str(site)]),
            "HUNMIN_HOME": str(tmp_path / "home"),
            "HUNMIN_LOG_FORMAT": "json",
            "HUNMIN_ECHO_PORT": str(free_port()),
            "HUNMIN_FRONT_PORT": str(free_port()),
        }
        command = Command(list(arguments), inherited | defaults | env, tmp_path / f"log-{len(started)}")
        started.append(command)
        return command

    yield start
    for command in started:
        if command.process.poll() is None:
            command.process.kill()
        command.process.wait()
        command.process.stdout.close()


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30, trust_env=False) as client:
        yield client

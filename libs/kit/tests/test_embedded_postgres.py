"""The embedded database outlives every way in which its server, or a process that uses it, can be killed."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest
from hunmin_contracts.errors import HunminError
from hunmin_kit.data.embedded import EmbeddedPostgres
from kit_sample.command import Command

Start = Callable[..., Command]


def postmaster(folder: Path) -> psutil.Process | None:
    """The living server of that folder, found by its own working folder alone."""
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder / "data") and process.parent().name() != "postgres":
                return process
        except (psutil.NoSuchProcess, psutil.AccessDenied, AttributeError):
            continue
    return None


def note(http: httpx.Client, command: Command) -> int:
    reply = http.post(f"{command.url('front')}/v1/notes", json={"name": "x"})
    return reply.json()["count"] if reply.status_code == 200 else -reply.status_code


def test_platform_outlives_the_kill_of_its_server_and_of_itself(
    hunmin: Start, http: httpx.Client, tmp_path: Path
) -> None:
    folder = tmp_path / "home" / "postgres"
    command = hunmin("run", "front", "echo").ready()
    assert note(http, command) == 1

    postmaster(folder).kill()  # the server alone: the process starts it again, and its pool connects anew
    deadline = time.monotonic() + 30
    while (answer := note(http, command)) != 2:
        assert answer == -503
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert http.get(f"{command.url('front')}/readyz").status_code == 200
    assert "database.server.died" in {line["event"] for line in command.events()}

    server = postmaster(folder)
    command.process.kill()  # both, as when the power fails
    server.kill()
    command.process.wait()
    command = hunmin("run", "front", "echo").ready()
    assert note(http, command) == 3
    assert command.stop() == 0
    assert postmaster(folder) is None  # nothing is left behind


@pytest.fixture(scope="module")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that was made and stopped once, to be copied; an earlier attempt to make it had been killed."""
    folder = tmp_path_factory.mktemp("initialised")
    (folder / "data.new" / "base").mkdir(parents=True)
    server = EmbeddedPostgres(folder, options=("fsync=off",))
    server.enter()
    server.leave()
    return folder


@pytest.fixture
def folder(initialised: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-a", f"{initialised}/.", str(tmp_path / "pg")], check=True)
    return tmp_path / "pg"


async def answer(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval("SELECT 1")
    finally:
        await connection.close()


async def test_initialisation_that_was_killed_is_done_again(folder: Path) -> None:
    async with EmbeddedPostgres(folder).running() as url:
        assert await answer(url) == 1
        assert not (folder / "data.new").exists()  # a test


async def test_stale_pid_file_with_a_foreign_process_is_seen_through(folder: Path) -> None:
    sleeper = await asyncio.create_subprocess_exec("sleep", "60")
    stale = [str(sleeper.pid), str(folder / "data"), "1", "5432", str(folder / "data"), "", "1 1", "ready"]
    (folder / "data" / "postmaster.pid").write_text("\n".join(stale))
    async with EmbeddedPostgres(folder).running() as url:
        assert await answer(url) == 1
    assert sleeper.returncode is None  # and left alone
    sleeper.kill()
    await sleeper.wait()


async def test_last_user_stops_the_server(folder: Path) -> None:
    first, second = EmbeddedPostgres(folder), EmbeddedPostgres(folder)
    async with first.running() as url:
        async with second.running() as other_url:
            assert url == other_url
            server = postmaster(folder)
        assert await answer(url) == 1
        assert postmaster(folder) == server
    assert postmaster(folder) is None


async def test_user_that_was_killed_counts_no_more(folder: Path) -> None:
    program = (
        "import sys, time, pathlib; from hunmin_kit.data.embedded import EmbeddedPostgres;"
        "EmbeddedPostgres(pathlib.Path(sys.argv[1])).enter(); print('in', flush=True); time.sleep(60)"
    )
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(folder), stdout=subprocess.PIPE)
    assert await other.stdout.readline() == b"in\n"
    other.send_signal(signal.SIGKILL)
    await other.wait()
    survivor = postmaster(folder)
    async with EmbeddedPostgres(folder).running() as url:
        assert postmaster(folder) == survivor  # taken over as it is
        assert await answer(url) == 1
    assert postmaster(folder) is None  # and stopped, though the first user never left


async def test_start_that_is_cancelled_leaves_no_server(folder: Path) -> None:
    async def use() -> None:
        async with EmbeddedPostgres(folder).running():
            pytest.fail("was not cancelled")

    task = asyncio.create_task(use())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert postmaster(folder) is None


async def test_many_start_at_once_and_share_one_server(folder: Path) -> None:
    servers = [EmbeddedPostgres(folder) for _ in range(4)]
    await asyncio.gather(*(asyncio.to_thread(server.enter) for server in servers))
    assert await asyncio.gather(*(answer(server.url) for server in servers)) == [1] * 4
    await asyncio.gather(*(asyncio.to_thread(server.leave) for server in servers))
    assert postmaster(folder) is None


@pytest.fixture
def deep_folder(folder: Path) -> Path:
    deep = folder.parent / ("d" * 60) / ("e" * 60)
    deep.parent.mkdir()
    return folder.rename(deep)


async def test_path_too_long_for_a_socket_works_too(deep_folder: Path) -> None:
    async with EmbeddedPostgres(deep_folder).running() as url:
        assert await answer(url) == 1
        assert str(deep_folder) not in url


def test_looking_for_the_socket_touches_none(folder: Path) -> None:
    data = folder / "data"
    before = data.stat().st_mtime_ns
    EmbeddedPostgres(folder)._socket_folder()  # another process's server may be starting there this very moment
    assert data.stat().st_mtime_ns == before


async def test_path_of_korean_letters_and_spaces_works_too(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path / "한글 폴더" / "postgres").running() as url:
        assert await answer(url)


@pytest.mark.parametrize("name", ["it's", 'quo"te', "co,mma", "$(dollar)", "back`tick", "back\\slash", "new\nline"])
def test_path_that_postgresql_cannot_take_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(HunminError, match=r"the path holds .*HUNMIN_HOME"):
        EmbeddedPostgres(tmp_path / name).enter()
    assert not (tmp_path / name).exists()


def test_folder_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HunminError, match=r"file/postgres cannot be written: Not a directory\. Set HUNMIN_HOME"):
        EmbeddedPostgres(tmp_path / "file" / "postgres").enter()

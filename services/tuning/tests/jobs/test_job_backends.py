"""What every backend promises, tried on each of them with a small trainer; and what only the local one can be asked."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hunmin_contracts.ids import JobId
from hunmin_tuning.jobs.backends.backend import LOG, Gone, JobBackend, Running
from hunmin_tuning.jobs.backends.local import LocalBackend
from hunmin_tuning.jobs.backends.pytorchjob.manifest import FOLDER

TRAINER = Path(__file__).parent / "fake_trainer.py"
HANG = {"steps": 10_000, "step_s": 0.01}


def marked(folder: Path) -> list[int]:
    """Every process that says it belongs to this folder, found without the backend."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environ = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if f"={folder}\0".encode() in environ:
            found.append(int(path.parent.name))
    return found


class Place(ABC):
    """A backend and a job with its folder; another backend on the same is the service after a restart."""

    pause_s = 0.01
    processes = 1  # of a job that has a worker besides, as far as `alive` can tell them apart

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job = JobId(f"job_{secrets.token_hex(4)}")
        self.backends: list[JobBackend] = []
        self.backend = self.new()

    @abstractmethod
    def _new(self) -> JobBackend:
        """Make a backend."""

    @abstractmethod
    def alive(self) -> set[object]:
        """Return whatever of the job there is, found without the backend."""

    def new(self) -> JobBackend:
        self.backends.append(self._new())
        return self.backends[-1]

    def plan(self, **plan: object) -> None:
        (self.folder / "plan.json").write_text(json.dumps(plan))

    async def start(self, **plan: object) -> None:
        self.plan(**plan)
        await self.backend.start(self.job, self.folder)

    async def poll(self, backend: JobBackend | None = None) -> Running | Gone:
        return await (backend or self.backend).poll(self.job, self.folder)

    async def stop(self, backend: JobBackend | None = None) -> None:
        await (backend or self.backend).stop(self.job, self.folder)

    async def has(self, name: str) -> None:
        while not (self.folder / name).exists():  # the event is in another process
            assert isinstance(await self.poll(), Running)
            await asyncio.sleep(self.pause_s)

    async def end(self) -> Gone:
        while isinstance(status := await self.poll(), Running):  # noqa: ASYNC110  # the event is in another process
            await asyncio.sleep(self.pause_s)
        return status


class LocalPlace(Place):
    processes = 3  # the shell, the trainer, its worker

    def _new(self) -> LocalBackend:
        environment = {"PATH": os.environ["PATH"], "HUNMIN_DATABASE_URL": "secret", "LANG": "C.UTF-8"}
        return LocalBackend([sys.executable, "-S", str(TRAINER)], environment=environment, grace_s=1.0)

    def alive(self) -> set[object]:
        return {*marked(self.folder)}


class ClusterPlace(Place):
    pause_s = 0.2

    def __init__(self, folder: Path, cluster: Any) -> None:
        self._cluster = cluster
        super().__init__(folder)

    def _new(self) -> JobBackend:
        return self._cluster.backend(["python", "-S", f"{FOLDER}/{TRAINER.name}"], grace_s=8)

    def plan(self, **plan: object) -> None:
        shutil.copy(TRAINER, self.folder)  # goes into the pods with the rest of the folder
        super().plan(**plan)

    def alive(self) -> set[object]:
        return {pod.metadata.uid for pod in self._cluster.pods(self.job)}


@pytest.fixture(params=["local", pytest.param("cluster", marks=pytest.mark.timeout(600))])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    is_local = request.param == "local"
    place_ = LocalPlace(tmp_path) if is_local else ClusterPlace(tmp_path, request.getfixturevalue("cluster"))
    yield place_
    for backend in place_.backends:
        await backend.stop(place_.job, tmp_path)
    assert place_.alive() == set()
    await place_.backend.forget(place_.job, tmp_path)


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalPlace]:
    place_ = LocalPlace(tmp_path)
    yield place_
    for backend in place_.backends:
        await backend.stop(place_.job, tmp_path)
    assert marked(tmp_path) == []


class TestEveryBackend:
    async def test_knows_of_no_process_before_there_is_one(self, place: Place):
        assert await place.poll() == Gone(None)
        await place.stop()

    async def test_runs_the_trainer_to_its_end(self, place: Place):
        await place.start(steps=4)
        assert await place.end() == Gone(0)
        assert json.loads((place.folder / "result.json").read_text())["steps"] == 4
        assert (place.folder / LOG).read_text() == "step 1\nstep 2\nstep 3\nstep 4\n"
        assert await place.poll() == Gone(0)

    @pytest.mark.parametrize("code", [1, 2, 3, 77])
    async def test_tells_how_it_ended(self, place: Place, code: int):
        await place.start(exit=code)
        assert await place.end() == Gone(code)

    async def test_tells_that_it_was_killed(self, place: Place):
        await place.start(steps=5, crash_at=[2])
        assert (await place.end()).exit_code not in (0, 2, 3)

    async def test_goes_on_in_the_same_folder(self, place: Place):
        await place.start(steps=9, crash_at=[2, 5])
        await place.end()
        await place.start(steps=9, crash_at=[2, 5])
        await place.end()
        await place.start(steps=9, crash_at=[2, 5])
        assert await place.end() == Gone(0)
        lines = [json.loads(line)["step"] for line in (place.folder / "metrics.jsonl").read_text().splitlines()]
        assert lines == list(range(1, 10))

    async def test_lets_it_leave_a_checkpoint_when_stopped(self, place: Place):
        await place.start(**HANG)
        await place.has("is-up")
        await place.stop()
        assert await place.poll() == Gone(3)
        assert (place.folder / "checkpoint.json").exists()

    async def test_ends_one_that_does_not_want_to(self, place: Place):
        await place.start(ignores_sigterm=True, **HANG)
        await place.has("is-up")
        await place.stop()
        assert isinstance(await place.poll(), Gone)
        assert place.alive() == set()

    async def test_ends_workers_that_left_the_session(self, place: Place):
        await place.start(worker=True, **HANG)
        await place.has("is-up")
        assert len(place.alive()) >= place.processes
        await place.stop()
        assert place.alive() == set()

    async def test_finds_it_after_a_restart_of_the_service(self, place: Place):
        await place.start(**HANG)
        await place.has("is-up")
        restarted = place.new()
        assert await place.poll(restarted) == Running()
        await place.stop(restarted)
        assert await place.poll(restarted) == Gone(3)
        assert await place.poll() == Gone(3)

    async def test_tells_after_a_restart_how_it_ended(self, place: Place):
        await place.start(exit=7)
        await place.end()
        assert await place.poll(place.new()) == Gone(7)

    async def test_has_one_process_for_a_job_however_often_it_is_started(self, place: Place):
        await place.start(worker=True, **HANG)
        await place.has("is-up")
        before = place.alive()
        await place.new().start(place.job, place.folder)
        assert before.isdisjoint(place.alive())
        assert isinstance(await place.poll(), Running)

    async def test_keeps_nothing_of_a_job_that_is_forgotten(self, place: Place):
        await place.start(exit=7)
        await place.end()
        await place.stop()
        await place.backend.forget(place.job, place.folder)
        shutil.rmtree(place.folder)
        place.folder.mkdir()
        assert await place.poll(place.new()) == Gone(None)
        assert list(place.folder.iterdir()) == []

    async def test_can_be_cancelled_at_any_moment_of_a_start(self, place: Place):
        place.plan(**HANG)
        for delay_s in (0, 0.001, 0.01, 0.03):
            task = asyncio.create_task(place.backend.start(place.job, place.folder))
            await asyncio.sleep(delay_s)
            task.cancel()
            await asyncio.wait([task])
            await place.stop()
            assert place.alive() == set()


class TestLocalBackend:
    async def test_finds_a_process_whose_number_was_never_noted(self, local: LocalPlace):
        await local.start(**HANG)
        await local.has("is-up")
        (local.folder / "process.pid").unlink()
        restarted = local.new()
        assert await local.poll(restarted) == Running()
        await local.stop(restarted)
        assert marked(local.folder) == []

    async def test_does_not_take_a_stranger_with_the_same_number_for_the_job(self, local: LocalPlace):
        with subprocess.Popen(["/bin/sleep", "600"]) as stranger:  # noqa: ASYNC220
            (local.folder / "process.pid").write_text(str(stranger.pid))
            assert await local.poll() == Gone(None)
            await local.stop()
            assert stranger.poll() is None
            stranger.kill()

    async def test_calls_a_trainer_gone_whose_shell_was_killed_and_ends_what_is_left(self, local: LocalPlace):
        await local.start(**HANG)
        await local.has("is-up")
        os.kill(int((local.folder / "process.pid").read_text()), signal.SIGKILL)
        assert await local.end() == Gone(None)
        assert marked(local.folder) != []
        await local.stop()
        assert marked(local.folder) == []

    async def test_keeps_the_service_s_secrets_from_the_trainer(self, local: LocalPlace):
        await local.start(**HANG)
        await local.has("is-up")
        for pid in marked(local.folder):
            environ = psutil.Process(pid).environ()
            assert "HUNMIN_DATABASE_URL" not in environ
            assert environ["LANG"] == "C.UTF-8"
            assert os.getsid(pid) != os.getsid(0)

"""What every backend promises, tried on each of them with a small trainer; and what only the local one can be asked."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from hunmin_contracts.ids import JobId
from hunmin_tuning.jobs.backends.backend import LOG, Gone, JobBackend, Running
from hunmin_tuning.jobs.backends.local import LocalBackend

JOB = JobId("job_1")
TRAINER = Path(__file__).parent / "fake_trainer.py"
HANG = {"steps": 10_000, "step_s": 0.01}


def local() -> LocalBackend:
    environment = {"PATH": os.environ["PATH"], "HUNMIN_DATABASE_URL": "secret", "LANG": "C.UTF-8"}
    return LocalBackend([sys.executable, "-S", str(TRAINER)], environment=environment, grace_s=1.0)


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


class Place:
    """A backend and the folder of a job; another backend on the same is the service after a restart."""

    def __init__(self, new: Callable[[], JobBackend], folder: Path) -> None:
        self._new = new
        self.folder = folder
        self.backends: list[JobBackend] = []
        self.backend = self.new()

    def new(self) -> JobBackend:
        self.backends.append(self._new())
        return self.backends[-1]

    def plan(self, **plan: object) -> None:
        (self.folder / "plan.json").write_text(json.dumps(plan))

    async def start(self, **plan: object) -> None:
        self.plan(**plan)
        await self.backend.start(JOB, self.folder)

    async def poll(self) -> Running | Gone:
        return await self.backend.poll(JOB, self.folder)

    async def stop(self) -> None:
        await self.backend.stop(JOB, self.folder)

    async def has(self, name: str) -> None:
        while not (self.folder / name).exists():  # noqa: ASYNC110  # the event is in another process
            await asyncio.sleep(0.01)

    async def end(self) -> Gone:
        while isinstance(status := await self.poll(), Running):  # noqa: ASYNC110  # the event is in another process
            await asyncio.sleep(0.01)
        return status


@pytest.fixture(params=[local])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    place_ = Place(request.param, tmp_path)
    yield place_
    for backend in place_.backends:
        await backend.stop(JOB, tmp_path)
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
        assert marked(place.folder) == []

    async def test_ends_workers_that_left_the_session(self, place: Place):
        await place.start(worker=True, **HANG)
        await place.has("is-up")
        assert len(marked(place.folder)) >= 3
        await place.stop()
        assert marked(place.folder) == []

    async def test_finds_it_after_a_restart_of_the_service(self, place: Place):
        await place.start(**HANG)
        await place.has("is-up")
        restarted = place.new()
        assert await restarted.poll(JOB, place.folder) == Running()
        await restarted.stop(JOB, place.folder)
        assert await restarted.poll(JOB, place.folder) == Gone(3)
        assert await place.poll() == Gone(3)

    async def test_tells_after_a_restart_how_it_ended(self, place: Place):
        await place.start(exit=7)
        await place.end()
        assert await place.new().poll(JOB, place.folder) == Gone(7)

    async def test_has_one_process_for_a_job_however_often_it_is_started(self, place: Place):
        await place.start(worker=True, **HANG)
        await place.has("is-up")
        before = set(marked(place.folder))
        await place.new().start(JOB, place.folder)
        assert before.isdisjoint(marked(place.folder))
        assert isinstance(await place.poll(), Running)

    async def test_can_be_cancelled_at_any_moment_of_a_start(self, place: Place):
        place.plan(**HANG)
        for delay_s in (0, 0.001, 0.01, 0.03):
            task = asyncio.create_task(place.backend.start(JOB, place.folder))
            await asyncio.sleep(delay_s)
            task.cancel()
            await asyncio.wait([task])
            await place.stop()
            assert marked(place.folder) == []


class TestLocalBackend:
    async def test_finds_a_process_whose_number_was_never_noted(self, place: Place):
        await place.start(**HANG)
        await place.has("is-up")
        (place.folder / "process.pid").unlink()
        restarted = place.new()
        assert await restarted.poll(JOB, place.folder) == Running()
        await restarted.stop(JOB, place.folder)
        assert marked(place.folder) == []

    async def test_does_not_take_a_stranger_with_the_same_number_for_the_job(self, place: Place):
        with subprocess.Popen(["/bin/sleep", "600"]) as stranger:  # noqa: ASYNC220
            (place.folder / "process.pid").write_text(str(stranger.pid))
            assert await place.poll() == Gone(None)
            await place.stop()
            assert stranger.poll() is None
            stranger.kill()

    async def test_calls_a_trainer_gone_whose_shell_was_killed_and_ends_what_is_left(self, place: Place):
        await place.start(**HANG)
        await place.has("is-up")
        os.kill(int((place.folder / "process.pid").read_text()), signal.SIGKILL)
        assert await place.end() == Gone(None)
        assert marked(place.folder) != []
        await place.stop()
        assert marked(place.folder) == []

    async def test_keeps_the_service_s_secrets_from_the_trainer(self, place: Place):
        await place.start(**HANG)
        await place.has("is-up")
        for pid in marked(place.folder):
            environ = psutil.Process(pid).environ()
            assert "HUNMIN_DATABASE_URL" not in environ
            assert environ["LANG"] == "C.UTF-8"
            assert os.getsid(pid) != os.getsid(0)

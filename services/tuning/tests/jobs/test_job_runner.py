"""Jobs from the queue to their end, with real processes: what is killed goes on, what is cancelled leaves nothing."""

import asyncio
import importlib.util
import json
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.tuning import TuningTemplate
from hunmin_contracts.tuning_jobs import CreateJobRequest, JobInfo, JobMetricsRequest
from hunmin_kit.data import Database
from hunmin_kit.data.migrations import Chain
from hunmin_kit.testing.events import events_of
from hunmin_kit.testing.postgres import fresh_database
from hunmin_tuning.jobs.backends.local import MARK
from hunmin_tuning.jobs.backends.pytorchjob.manifest import FOLDER
from hunmin_tuning.jobs.claims import Claim, Claims
from hunmin_tuning.jobs.registry import Registry
from hunmin_tuning.jobs.runner import Runner
from hunmin_tuning.jobs.states import ENDED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.trace import NoOpTracer

SCRIPT = Path(__file__).parent / "runner_process.py"
_spec = importlib.util.spec_from_file_location("runner_process", SCRIPT)
runner_process = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runner_process)
LIMITS, TRAINER, Studio = runner_process.LIMITS, runner_process.TRAINER, runner_process.Studio

ACCOUNT = "acct_1"
SLOW = {"steps": 40, "step_s": 0.02}


def new_request(**values: object) -> CreateJobRequest:
    template = TuningTemplate(prompt="<|VIRTUAL_PROMPT_0|>{text}", answer="{label}")
    return CreateJobRequest(
        account_id=ACCOUNT, name="mood", model="starter", dataset_id="ds_1", template=template, **values
    )


class Workshop:
    """A queue, runners on it, and an eye on the processes."""

    def __init__(self, database: Database, url: str, folder: Path) -> None:
        self.url = url
        events = events_of(database)
        self.claims = Claims(database, LIMITS, events)
        self.registry = Registry(database, LIMITS, events)
        self.studio = Studio(folder / "jobs", {})
        self.backend = runner_process.new_backend()

    async def add(self, plan: dict, **values: object) -> str:
        self.studio.plan = plan
        return (await self.registry.add(new_request(**values))).id

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK, "").startswith(str(self.studio.folders)):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def left(self) -> list[Any]:
        """Whatever of its trainers there still is."""
        return self.processes()

    def trainers(self) -> list[int]:
        return [process.pid for process in self.processes() if process.name() != "sh"]

    @asynccontextmanager
    async def running(self, **changes: object) -> AsyncIterator[None]:
        parts = replace(self.studio.parts(self.claims, self.backend), **changes)
        task = asyncio.create_task(Runner(parts, self.studio.folders).run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

    @contextmanager
    def runner_in_a_process(self) -> Iterator[subprocess.Popen]:
        plan = json.dumps(self.studio.plan)
        with subprocess.Popen([sys.executable, str(SCRIPT), self.url, str(self.studio.folders), plan]) as service:
            try:
                yield service
            finally:
                service.kill()

    async def until(self, job_id: str, is_so: Callable[[JobInfo], bool]) -> JobInfo:
        async with asyncio.timeout(120):
            while not is_so(info := await self.registry.find(ACCOUNT, job_id)):  # noqa: ASYNC110  # the event is in the database
                await asyncio.sleep(0.01)
            return info

    async def end(self, job_id: str) -> JobInfo:
        return await self.until(job_id, lambda info: info.state in ENDED)

    async def is_running_again(self, job_id: str) -> None:
        async with asyncio.timeout(60):
            while (await self.states(job_id)).count("running") < 2:  # noqa: ASYNC110  # the journal offers no event
                await asyncio.sleep(0.01)

    async def states(self, job_id: str) -> list[str]:
        events, _ = await self.registry.events(ACCOUNT, job_id, after=0, limit=10_000)
        return [event.root.state for event in events if event.root.type == "state"]

    async def is_tidy(self, job_id: str) -> None:
        while (self.studio.folders / job_id).exists():  # noqa: ASYNC110  # the event is on the disk
            await asyncio.sleep(0.01)

    async def steps(self, job_id: str) -> list[int]:
        page = await self.registry.metrics(JobMetricsRequest(account_id=ACCOUNT, job_id=job_id, limit=10_000))
        return [entry.step for entry in page.data]

    async def log(self, job_id: str) -> list[str]:
        events, is_ended = await self.registry.events(ACCOUNT, job_id, after=0, limit=10_000)
        assert is_ended
        return [event.root.line for event in events if event.root.type == "log"]

    async def check_success(self, job_id: str, steps: int) -> JobInfo:
        info = await self.end(job_id)
        assert (info.state, info.soft_prompt, info.error) == ("succeeded", "mood@1", None)
        assert (info.result.steps, info.result.train_loss, info.step) == (steps, 1 / steps, steps)
        assert await self.steps(job_id) == list(range(1, steps + 1))
        return info


@pytest.fixture
async def workshop(database: Database, url: str, tmp_path: Path) -> AsyncIterator[Workshop]:
    workshop_ = Workshop(database, url, tmp_path)
    yield workshop_
    left = workshop_.processes()
    for process in left:
        process.kill()
    assert left == []


class TestJob:
    async def test_runs_to_its_end_and_leaves_a_soft_prompt_and_no_folder(self, workshop: Workshop):
        job = await workshop.add({"steps": 7})
        async with workshop.running():
            await workshop.check_success(job, 7)
            await workshop.is_tidy(job)
        assert await workshop.log(job) == [f"step {number}" for number in range(1, 8)]
        assert workshop.studio.published() == {job}
        assert list(workshop.studio.folders.iterdir()) == []

    async def test_that_is_wrong_fails_at_once_with_what_the_trainer_says(self, workshop: Workshop):
        job = await workshop.add({"error": {"code": "invalid_request", "message": "No row is left."}})
        async with workshop.running():
            info = await workshop.end(job)
        assert (info.state, info.attempt) == ("failed", 1)
        assert (info.error.code, info.error.message) == ("invalid_request", "No row is left.")

    @pytest.mark.parametrize("code", [0, 1, 2, 3])
    async def test_that_never_does_what_it_should_fails_after_its_attempts(self, workshop: Workshop, code: int):
        job = await workshop.add({"exit": code})
        async with workshop.running():
            info = await workshop.end(job)
        assert (info.state, info.attempt) == ("failed", LIMITS.max_attempts)
        assert f"exit code {code}" in info.error.message

    async def test_that_takes_too_long_is_ended(self, workshop: Workshop):
        job = await workshop.add({"steps": 10_000, "step_s": 0.01, "worker": True}, deadline_s=1)
        async with workshop.running():
            info = await workshop.end(job)
        assert (info.state, info.error.code) == ("failed", "deadline_exceeded")

    async def test_waits_for_the_account_s_other(self, workshop: Workshop):
        first, second = await workshop.add(SLOW), await workshop.add(SLOW)
        async with workshop.running():
            await workshop.until(first, lambda info: info.state == "running")
            assert (await workshop.registry.find(ACCOUNT, second)).queue.position == 1
            ended = [await workshop.check_success(job, 40) for job in (first, second)]
        assert ended[0].ended_at <= ended[1].started_at


class TestSurroundings:
    async def test_prepare_that_refuses_fails_the_job(self, workshop: Workshop):
        async def prepare(claim: Claim, folder: Path) -> None:
            raise HunminError(ErrorCode.NOT_FOUND, "The dataset is gone.")

        job = await workshop.add({})
        async with workshop.running(prepare=prepare):
            info = await workshop.end(job)
        assert (info.state, info.attempt, info.error.code) == ("failed", 1, "not_found")

    async def test_prepare_that_breaks_is_tried_again(self, workshop: Workshop):
        errors = [RuntimeError("a secret"), HunminError(ErrorCode.INTERNAL, "A fault.")]

        async def prepare(claim: Claim, folder: Path) -> None:
            if errors:
                raise errors.pop()
            await workshop.studio.prepare(claim, folder)

        job = await workshop.add({"steps": 3})
        async with workshop.running(prepare=prepare):
            assert (await workshop.check_success(job, 3)).attempt == 3
        events, _ = await workshop.registry.events(ACCOUNT, job, after=0, limit=99)
        assert "secret" not in str(events)

    @pytest.mark.parametrize("step", ["prepare", "publish"])
    async def test_waits_for_a_service_that_is_away_without_losing_an_attempt(self, workshop: Workshop, step: str):
        errors = [HunminError(ErrorCode.UNAVAILABLE, "Later.")] * (LIMITS.max_attempts + 2)

        async def late(claim: Claim, folder: Path) -> str | None:
            if errors:
                raise errors.pop()
            return await getattr(workshop.studio, step)(claim, folder)

        job = await workshop.add({"steps": 4})
        async with workshop.running(**{step: late}):
            assert (await workshop.check_success(job, 4)).attempt == 1
        assert len(await workshop.log(job)) == 4  # trained once
        events, _ = await workshop.registry.events(ACCOUNT, job, after=0, limit=99)
        assert sum("Later." in event.model_dump_json() for event in events) == LIMITS.max_attempts + 2

    async def test_does_not_wait_for_a_service_beyond_its_deadline(self, workshop: Workshop):
        async def prepare(claim: Claim, folder: Path) -> None:
            raise HunminError(ErrorCode.UNAVAILABLE, "Later.")

        job = await workshop.add({}, deadline_s=0.5)
        async with workshop.running(prepare=prepare):
            info = await workshop.end(job)
        assert (info.state, info.attempt, info.error.code) == ("failed", 1, "deadline_exceeded")

    async def test_publish_that_breaks_is_tried_again_without_training_again(self, workshop: Workshop):
        errors = [HunminError(ErrorCode.INTERNAL, "A fault.")]

        async def publish(claim: Claim, folder: Path) -> str:
            if errors:
                raise errors.pop()
            return await workshop.studio.publish(claim, folder)

        job = await workshop.add({"steps": 4})
        async with workshop.running(publish=publish):
            await workshop.check_success(job, 4)
        assert len(await workshop.log(job)) == 4


class TestKill:
    async def test_of_the_trainer_at_any_step_loses_and_doubles_nothing(self, workshop: Workshop):
        job = await workshop.add({"steps": 20, "crash_at": [1, 8, 20]})
        async with workshop.running():
            info = await workshop.check_success(job, 20)
        assert info.attempt == 4

    async def test_of_the_service_lets_the_trainer_go_on(self, workshop: Workshop):
        job = await workshop.add({"steps": 120, "step_s": 0.02})
        with workshop.runner_in_a_process():
            await workshop.until(job, lambda info: info.step > 5)
            trainers = workshop.trainers()
        assert (await workshop.registry.find(ACCOUNT, job)).state == "running"
        async with workshop.running():
            await workshop.is_running_again(job)
            assert workshop.trainers() == trainers
            assert (await workshop.check_success(job, 120)).attempt == 1
        assert await workshop.log(job) == [f"step {number}" for number in range(1, 121)]

    async def test_of_both_goes_on_from_the_checkpoint(self, workshop: Workshop):
        job = await workshop.add({"steps": 60, "step_s": 0.02, "worker": True})
        with workshop.runner_in_a_process() as service:
            await workshop.until(job, lambda info: info.step > 10)
            service.kill()
            for process in workshop.processes():
                process.kill()
        async with workshop.running():
            assert (await workshop.check_success(job, 60)).attempt == 2

    async def test_of_the_service_while_a_cancel_waits_leaves_nothing(self, workshop: Workshop):
        job = await workshop.add({"steps": 10_000, "step_s": 0.01, "worker": True})
        with workshop.runner_in_a_process():
            await workshop.until(job, lambda info: info.step > 5)
        assert (await workshop.registry.cancel(ACCOUNT, job)).state == "running"
        assert workshop.processes() != []
        async with workshop.running():
            assert (await workshop.end(job)).state == "cancelled"
            assert workshop.processes() == []

    async def test_of_the_service_after_the_end_leaves_a_folder_that_is_tidied_up(self, workshop: Workshop):
        job = await workshop.add({"steps": 2})
        async with workshop.running():
            await workshop.end(job)
            await workshop.is_tidy(job)
        (workshop.studio.folders / job).mkdir()
        async with workshop.running():
            await workshop.is_tidy(job)


class TestStopOfTheService:
    async def test_ends_the_trainer_with_a_checkpoint_and_costs_no_attempt(self, workshop: Workshop):
        job = await workshop.add(SLOW)
        async with workshop.running():
            await workshop.until(job, lambda info: info.step > 5)
        info = await workshop.registry.find(ACCOUNT, job)
        assert (info.state, info.attempt) == ("queued", 1)
        assert workshop.processes() == []
        async with workshop.running():
            assert (await workshop.check_success(job, 40)).attempt == 1
        assert await workshop.log(job) == [f"step {number}" for number in range(1, 41)]  # no step was computed twice

    async def test_that_lost_its_job_does_not_touch_the_other_s_process(self, workshop: Workshop):
        job = await workshop.add({"steps": 150, "step_s": 0.02})
        is_frozen = asyncio.Event()

        class Frozen(Claims):
            async def renew(self, claim: Claim):
                if is_frozen.is_set():
                    await asyncio.sleep(1.5)
                return await super().renew(claim)

            async def take(self):
                return None if is_frozen.is_set() else await super().take()

        async with workshop.running(claims=Frozen(database := workshop.claims._database, LIMITS, events_of(database))):
            await workshop.until(job, lambda info: info.step > 5)
            trainers = workshop.trainers()
            is_frozen.set()
            async with workshop.running():
                await workshop.is_running_again(job)
                assert workshop.trainers() == trainers
                assert (await workshop.check_success(job, 150)).attempt == 1


EDGES = ["added", "prepare", "prepared", "running", "crash", "publish", "succeeded", "stopped service"]


class ClusterWorkshop(Workshop):
    """One whose trainers are pods."""

    def __init__(self, database: Database, url: str, folder: Path, cluster: Any) -> None:
        super().__init__(database, url, folder)
        limits = replace(LIMITS, lease_s=20.0)
        events = events_of(database)
        self.claims, self.registry = Claims(database, limits, events), Registry(database, limits, events)
        self.cluster = cluster
        self.backend = cluster.backend(["python", "-S", f"{FOLDER}/{TRAINER.name}"], grace_s=4)

    def left(self) -> list[Any]:
        return self.cluster.objects()


class TestCancel:
    def test_at_every_edge_ends_in_cancelled_or_succeeded_and_leaves_no_process(self, tmp_path: Path):
        delays_s = st.sampled_from([0, 0.001, 0.01, 0.05])
        _cancel_at_edges(Workshop, tmp_path, delays_s, examples=30)

    @pytest.mark.timeout(1800)
    def test_on_a_cluster_too_and_leaves_no_pod(self, tmp_path: Path, cluster: Any):
        delays_s = st.sampled_from([0, 0.1, 1, 4])
        _cancel_at_edges(partial(ClusterWorkshop, cluster=cluster), tmp_path, delays_s, examples=16)


def _cancel_at_edges(
    workshop_of: Callable[[Database, str, Path], Workshop],
    tmp_path: Path,
    delays_s: st.SearchStrategy[float],
    examples: int,
) -> None:
    with asyncio.Runner() as runner:
        stack = _database()
        url, database = runner.run(anext(stack))

        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(edge=st.sampled_from(EDGES), delay_s=delays_s, ignores=st.booleans())
        def check(edge: str, delay_s: float, ignores: bool) -> None:
            folder = tmp_path / secrets.token_hex(6)
            folder.mkdir()
            workshop = workshop_of(database, url, folder)
            runner.run(_cancel_at(workshop, edge, delay_s, ignores and edge != "stopped service"))

        try:
            check()
        finally:
            runner.run(anext(stack, None))


async def _cancel_at(workshop: Workshop, edge: str, delay_s: float, ignores: bool) -> None:
    plan = {"steps": 6, "step_s": 0.005, "worker": True, "ignores_sigterm": ignores}
    job = await workshop.add(plan | ({"crash_at": [3]} if edge == "crash" else {}))
    accepted: list[bool] = []
    asked: list[asyncio.Task] = []

    async def ask() -> None:
        await asyncio.sleep(delay_s)
        try:
            accepted.append((await workshop.registry.cancel(ACCOUNT, job)).is_cancel_wanted)
        except HunminError as error:
            if error.code != ErrorCode.CONFLICT:
                raise
            accepted.append(False)

    def at(now: str) -> None:
        if now == edge and not asked:
            asked.append(asyncio.create_task(ask()))

    async def prepare(claim: Claim, folder: Path) -> None:
        at("prepare")
        await asyncio.sleep(0.02)
        await workshop.studio.prepare(claim, folder)
        at("prepared")

    async def publish(claim: Claim, folder: Path) -> str:
        at("publish")
        await asyncio.sleep(0.02)
        return await workshop.studio.publish(claim, folder)

    at("added")
    async with workshop.running(prepare=prepare, publish=publish):
        await workshop.until(job, lambda info: info.state in ("running", *ENDED) or edge == "stopped service")
        at("running")
        if edge == "crash":
            await workshop.until(job, lambda info: info.attempt == 2 or info.state in ENDED)
            at("crash")
        if edge != "stopped service":
            await workshop.end(job)
            at("succeeded")
    at("stopped service")
    await asyncio.gather(*asked)
    async with workshop.running():
        info = await workshop.end(job)
        await workshop.is_tidy(job)
    assert workshop.left() == []
    assert info.state == ("cancelled" if accepted[0] else "succeeded")
    assert (job in workshop.studio.published()) == (info.state == "succeeded")
    states = await workshop.states(job)
    assert len(ENDED.intersection(states)) == 1


async def _database() -> AsyncIterator[tuple[str, Database]]:
    async with fresh_database() as url:
        await Chain("tuning", "hunmin_tuning.migrations").upgrade(url)
        database = Database(url, schema="tuning", tracer=NoOpTracer(), pool_size=5)
        yield url, database
        await database.close()

"""Files and fine-tuning jobs by the official client, and CLOVA tasks, before services that keep what they are told."""

import base64
import csv
import io
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

import httpx
import openai
import pytest
import pytest_asyncio
from fastapi import APIRouter, FastAPI
from hunmin_contracts import datasets, soft_prompts, tuning_jobs
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import new_dataset_id, new_job_id
from hunmin_contracts.schema import Empty
from hunmin_contracts.tuning import Evaluation, Hyperparameters, StepMetrics, TuningResult, ValidationMetrics
from hunmin_contracts.tuning_jobs import JobEvent, JobInfo, LogEvent, MetricsEvent, StateEvent
from hunmin_gateway.keys.authentication import authenticate
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.keys.text import new_key
from hunmin_gateway.parts import parts_of_app
from hunmin_gateway.service import SERVICE
from hunmin_kit.run import Platform, Service, Settings
from hunmin_kit.testing import Running, running
from hunmin_kit.web import serve
from pydantic import Field

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW = datetime(2026, 11, 28, tzinfo=UTC)
LINES = b'{"prompt": "a", "completion": "b"}\n'
ANSWERED = Evaluation(rows=1, loss=1.0)
RESULT = TuningResult(
    steps=3,
    best_step=2,
    stopped_early=False,
    train_loss=0.5,
    validation_loss=0.4,
    zero_shot=ANSWERED,
    few_shot=ANSWERED,
    tuned=ANSWERED,
    weights_digest="0" * 64,
)
METRICS = [
    *(
        StepMetrics(
            step=n, total_steps=3, epoch=0, loss=1 / n, learning_rate=0.1, gradient_norm=1, tokens=10, duration_s=1
        )
        for n in (1, 2, 3)
    ),
    ValidationMetrics(step=2, loss=0.4, is_best=True),
]


class ServiceSettings(Settings):
    port: int = Field(default=0)


@dataclass
class Tuning:
    """Datasets and jobs by account; a job stands as the test says."""

    files: dict[str, tuple[str, datasets.DatasetInfo, bytes]] = field(default_factory=dict)
    jobs: dict[str, JobInfo] = field(default_factory=dict)
    refusal: HunminError | None = None
    deleted: list[str] = field(default_factory=list)

    def stands(self, job_id: str, **values: Any) -> None:
        own_id = "job_" + job_id.removeprefix("ftjob-")
        self.jobs[own_id] = self.jobs[own_id].model_copy(update=values)

    def dataset(self, request: datasets.DatasetRequest) -> tuple[datasets.DatasetInfo, bytes]:
        owner, info, content = self.files.get(request.reference, ("", None, b""))
        if info is None or owner != request.account_id:
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no dataset {request.reference!r}.")
        return info, content

    def job(self, request: Any) -> JobInfo:
        info = self.jobs.get(request.job_id)
        if info is None or info.request.account_id != request.account_id:
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no job {request.job_id!r}.")
        return info

    def service(self) -> Service[ServiceSettings]:
        router = APIRouter()
        self._offer_datasets(router)
        self._offer_jobs(router)
        return _service("tuning", router, upload_paths=[datasets.UPLOAD.path])

    def generation(self) -> Service[ServiceSettings]:
        """Only forgets soft prompts."""
        router = APIRouter()

        @serve(router, soft_prompts.DELETE)
        async def delete(request: soft_prompts.DeleteRequest) -> Empty:
            assert not request.force
            if request.reference in self.deleted:
                raise HunminError(ErrorCode.NOT_FOUND, "There is no such soft prompt.")
            self.deleted.append(request.reference)
            return Empty()

        return _service("generation", router)

    def _offer_datasets(self, router: APIRouter) -> None:
        @serve(router, datasets.UPLOAD)
        async def upload(request: datasets.UploadRequest, file: BinaryIO) -> datasets.DatasetInfo:
            content = file.read()
            if content.startswith(b"\xff"):
                raise HunminError(ErrorCode.INVALID_REQUEST, "Line 1: no text.", param="file", line=1)
            assert request.format == "jsonl"
            wrong = datasets.Finding(
                kind="malformed_row", severity="error", message="It is no JSON.", count=30, lines=[3, 4]
            )
            info = datasets.DatasetInfo(
                id=new_dataset_id(),
                name=request.name,
                version=1,
                format="jsonl",
                encoding="utf-8",
                columns=["Text", "Completion"] if b'"Text"' in content else ["prompt", "completion"],
                rows=content.count(b"\n"),
                digest="3" * 64,
                size_bytes=len(content),
                findings=[wrong] if b"bad" in content else [],
                filename=request.filename,
                created_at=NOW + timedelta(seconds=len(self.files)),
            )
            self.files[info.id] = (request.account_id, info, content)
            return info

        @serve(router, datasets.LIST)
        async def page(request: datasets.ListRequest) -> datasets.DatasetPage:
            own = [info for owner, info, _ in self.files.values() if owner == request.account_id]
            start = 0 if request.after is None else [info.id for info in own].index(request.after) + 1
            return datasets.DatasetPage(data=own[start : start + 2], has_more=start + 2 < len(own))

        @serve(router, datasets.DESCRIBE)
        async def describe(request: datasets.DatasetRequest) -> datasets.DatasetInfo:
            return self.dataset(request)[0]

        @serve(router, datasets.FILE)
        async def file(request: datasets.DatasetRequest) -> AsyncIterator[datasets.DatasetPiece]:
            content = self.dataset(request)[1]
            for start in range(0, len(content), 10):
                if content[start:].startswith(b"!"):
                    raise HunminError(ErrorCode.UNAVAILABLE, "The disk is gone.")
                piece = datasets.FilePiece(content=base64.b64encode(content[start : start + 10]))
                yield datasets.DatasetPiece(piece)

        @serve(router, datasets.DELETE)
        async def delete(request: datasets.DatasetRequest) -> Empty:
            del self.files[self.dataset(request)[0].id]
            return Empty()

    def _offer_jobs(self, router: APIRouter) -> None:
        @serve(router, tuning_jobs.CREATE)
        async def create(request: tuning_jobs.CreateJobRequest) -> JobInfo:
            if self.refusal is not None:
                raise self.refusal
            info = JobInfo(
                id=new_job_id(),
                request=request,
                state="queued",
                attempt=1,
                is_cancel_wanted=False,
                step=0,
                created_at=NOW,
                started_at=None,
                ended_at=None,
                queue=None,
                error=None,
                result=None,
                soft_prompt=None,
            )
            self.jobs = {info.id: info} | self.jobs
            return info

        @serve(router, tuning_jobs.LIST)
        async def page(request: tuning_jobs.ListJobsRequest) -> tuning_jobs.JobPage:
            own = [info for info in self.jobs.values() if info.request.account_id == request.account_id]
            start = 0 if request.after is None else [info.id for info in own].index(request.after) + 1
            end = start + request.limit
            return tuning_jobs.JobPage(data=own[start:end], has_more=end < len(own))

        @serve(router, tuning_jobs.DESCRIBE)
        async def describe(request: tuning_jobs.JobRequest) -> JobInfo:
            return self.job(request)

        @serve(router, tuning_jobs.CANCEL)
        async def cancel(request: tuning_jobs.JobRequest) -> JobInfo:
            info = self.job(request)
            if info.state == "succeeded":
                raise HunminError(ErrorCode.CONFLICT, "The job has succeeded already and cannot be cancelled.")
            self.stands(request.job_id.replace("job_", "ftjob-"), is_cancel_wanted=True)
            return self.job(request)

        @serve(router, tuning_jobs.METRICS)
        async def metrics(request: tuning_jobs.JobMetricsRequest) -> tuning_jobs.JobMetricsPage:
            self.job(request)
            page = METRICS[request.after : request.after + 3]
            return tuning_jobs.JobMetricsPage(data=page, last=request.after + len(page), has_more=request.after == 0)

        @serve(router, tuning_jobs.HISTORY)
        async def history(request: tuning_jobs.JobHistoryRequest) -> tuning_jobs.JobHistory:
            self.job(request)
            told = [event for event in _told() if request.before is None or event.root.sequence < request.before]
            page = told[: request.limit]
            return tuning_jobs.JobHistory(data=page, has_more=len(page) < len(told))


def _told() -> list[JobEvent]:
    state = {"at": NOW, "attempt": 1, "is_cancel_wanted": False}
    broken = tuning_jobs.JobError(code="internal", message="The trainer was killed.")
    events = [
        StateEvent(sequence=1, state="queued", **state),
        MetricsEvent(sequence=2, at=NOW, metrics=METRICS[0]),
        MetricsEvent(sequence=3, at=NOW, metrics=METRICS[3]),
        LogEvent(sequence=4, at=NOW, line="한 줄"),
        StateEvent(sequence=5, state="queued", error=broken, **state),
        StateEvent(sequence=6, state="failed", error=broken, **state),
    ]
    return [JobEvent(event) for event in reversed(events)]


def _service(name: str, router: APIRouter, *, upload_paths: Sequence[str] = ()) -> Service[ServiceSettings]:
    @asynccontextmanager
    async def build(platform: Platform, _: ServiceSettings) -> AsyncIterator[FastAPI]:
        app = platform.app(title=name, upload_paths=upload_paths)
        app.include_router(router)
        yield app

    return Service(name=name, settings=ServiceSettings, build=build)


@dataclass
class Studio:
    url: str
    key: str
    account_id: str
    tuning: Tuning
    client: openai.AsyncOpenAI
    http: httpx.AsyncClient

    async def file(self, content: bytes = LINES * 20, name: str = "학습 Reviews.jsonl") -> Any:
        return await self.client.files.create(file=(name, content), purpose="fine-tune")

    async def job(self, **asked: Any) -> Any:
        file = await self.file()
        return await self.client.fine_tuning.jobs.create(**{"model": "starter", "training_file": file.id} | asked)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[tuple[Running, Tuning]]:
    tuning = Tuning()
    neighbours = [tuning.service(), tuning.generation(), _service("tokenizer", APIRouter())]
    async with running(SERVICE, *neighbours, network=True) as up:
        yield up, tuning


@pytest_asyncio.fixture(loop_scope="module")
async def studio(gateway: tuple[Running, Tuning], tls: ssl.SSLContext) -> AsyncIterator[Studio]:
    """The gateway, as a new account sees it."""
    up, tuning = gateway
    parts = parts_of_app(up.app("gateway"))
    async with parts.database.session() as session:
        ring = KeyRing(session, pepper=parts.pepper)
        key, _ = await ring.create(f"account {new_key()}", "test")
    account_id = (await authenticate(parts.database.quick, key, pepper=parts.pepper)).account_id
    tuning.refusal = None
    url = up.url("gateway")
    async with (
        openai.AsyncOpenAI(
            base_url=f"{url}/v1",
            api_key=key,
            max_retries=0,
            timeout=10,
            http_client=openai.DefaultAsyncHttpxClient(verify=tls),
        ) as client,
        httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=10, verify=tls) as http,
    ):
        yield Studio(url, key, account_id, tuning, client, http)


class TestFiles:
    async def test_a_file_is_kept_described_read_and_deleted(self, studio: Studio):
        file = await studio.file()
        assert (file.object, file.bytes, file.filename) == ("file", len(LINES) * 20, "학습 Reviews.jsonl")
        assert (file.purpose, file.status, file.status_details) == ("fine-tune", "processed", None)
        assert studio.tuning.files["ds_" + file.id.removeprefix("file-")][1].name == "reviews"
        assert await studio.client.files.retrieve(file.id) == file
        assert (await studio.client.files.wait_for_processing(file.id)).id == file.id
        assert (await studio.client.files.content(file.id)).content == LINES * 20
        assert (await studio.client.files.delete(file.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await studio.client.files.retrieve(file.id)

    async def test_lines_that_are_wrong_are_told(self, studio: Studio):
        file = await studio.file(LINES + b"bad\n")
        assert (file.status, file.status_details) == ("error", "Lines 3, 4 and 28 more: It is no JSON.")
        with pytest.raises(openai.BadRequestError) as refusal:
            await studio.client.fine_tuning.jobs.create(model="starter", training_file=file.id)
        assert refusal.value.param == "training_file"
        assert "Lines 3, 4 and 28 more" in refusal.value.message

    async def test_a_file_that_cannot_be_read_is_refused(self, studio: Studio):
        with pytest.raises(openai.BadRequestError, match="Line 1: no text") as refusal:
            await studio.file(b"\xff")
        assert refusal.value.param == "file"

    async def test_they_are_listed_in_pages_by_time(self, studio: Studio):
        made = [(await studio.file(LINES * n, f"{n}.jsonl")).id for n in (1, 2, 3, 4, 5)]
        assert [file.id async for file in studio.client.files.list()] == made[::-1]
        page = await studio.client.files.list(limit=2, order="asc")
        assert ([file.id for file in page.data], page.has_more) == (made[:2], True)
        assert [file.id async for file in studio.client.files.list(limit=2, order="asc")] == made
        assert (await studio.client.files.list(purpose="batch")).data == []
        with pytest.raises(openai.BadRequestError) as refusal:
            await studio.client.files.list(after="file-" + "0" * 24)
        assert refusal.value.param == "after"

    async def test_another_account_finds_none_of_them(self, studio: Studio, gateway: tuple[Running, Tuning]):
        file = await studio.file()
        own_id = "ds_" + file.id.removeprefix("file-")
        studio.tuning.files[own_id] = ("acct_other", *studio.tuning.files[own_id][1:])
        for call in (studio.client.files.retrieve, studio.client.files.content, studio.client.files.delete):
            for file_id in (file.id, "file-x", "file-results-" + "0" * 24):
                with pytest.raises(openai.APIStatusError) as refusal:
                    await call(file_id)
                wanted = 400 if call == studio.client.files.delete and "results" in file_id else 404
                assert refusal.value.status_code == wanted

    async def test_a_purpose_that_is_not_served_is_refused(self, studio: Studio):
        with pytest.raises(openai.BadRequestError) as refusal:
            await studio.client.files.create(file=("a.jsonl", LINES), purpose="vision")
        assert refusal.value.param == "purpose"

    async def test_a_file_may_be_larger_than_another_request(self, studio: Studio):
        assert (await studio.file(LINES * 500_000)).bytes == len(LINES) * 500_000 > 16 * 2**20

    async def test_a_file_that_breaks_off_is_not_taken_for_whole(self, studio: Studio):
        file = await studio.file(b"0123456789!")
        with pytest.raises(openai.APIConnectionError):
            await studio.client.files.content(file.id)


class TestJobs:
    async def test_no_page_of_jobs_begins_behind_what_is_no_job(self, studio: Studio):
        with pytest.raises(openai.BadRequestError) as refusal:
            await studio.client.fine_tuning.jobs.list(after="file-" + "0" * 24)
        assert refusal.value.param == "after"

    async def test_a_job_is_asked_for_with_what_is_chosen(self, studio: Studio):
        job = await studio.job(suffix="My Reviews", seed=7, metadata={"팀": "검색"})
        assert (job.object, job.status, job.model, job.seed) == ("fine_tuning.job", "queued", "starter", 7)
        assert (job.fine_tuned_model, job.finished_at, job.error, job.result_files) == (None, None, None, [])
        assert (job.organization_id, job.metadata) == (studio.account_id, {"팀": "검색"})
        chosen = job.method.supervised.hyperparameters
        assert (chosen.n_epochs, chosen.batch_size, chosen.learning_rate_multiplier) == (20, 4, 1.0)
        asked = studio.tuning.jobs["job_" + job.id.removeprefix("ftjob-")].request
        assert (asked.name, asked.dataset_id) == ("my-reviews", "ds_" + job.training_file.removeprefix("file-"))
        assert (asked.template.prompt, asked.template.answer) == ("<|VIRTUAL_PROMPT_0|>{prompt}", "{completion}")
        assert await studio.client.fine_tuning.jobs.retrieve(job.id) == job

    async def test_hyperparameters_are_taken_from_either_place(self, studio: Studio):
        numbers = {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 0.5}
        for asked in (
            {"hyperparameters": numbers},
            {"method": {"type": "supervised", "supervised": {"hyperparameters": numbers}}},
        ):
            job = await studio.job(**asked)
            assert job.hyperparameters.model_dump() == {
                "n_epochs": 2,
                "batch_size": 4,
                "learning_rate_multiplier": 0.5,
            }
            request = studio.tuning.jobs["job_" + job.id.removeprefix("ftjob-")].request
            assert request.hyperparameters.learning_rate == pytest.approx(Hyperparameters().learning_rate / 2)
            assert request.name == "ft-reviews"

    @pytest.mark.parametrize(
        ("asked", "param"),
        [
            ({"validation_file": "file-1"}, "validation_file"),
            ({"suffix": "한글"}, "suffix"),
            ({"suffix": "a" * 65}, "suffix"),
            ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations"),
            ({"method": {"type": "dpo"}}, "method.type"),
            ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
            ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs"),
            ({"hyperparameters": {"n_epochs": 2000}}, "hyperparameters"),
            ({"hyperparameters": {"beta": 1}}, "hyperparameters.beta"),
            ({"training_file": "file-" + "0" * 24}, "training_file"),
            ({"training_file": "reviews"}, "training_file"),
            ({"extra_body": {"colour": "red"}}, "colour"),
        ],
    )
    async def test_what_is_not_served_is_refused_by_its_name(self, studio: Studio, asked: dict, param: str):
        with pytest.raises(openai.BadRequestError) as refusal:
            await studio.job(**asked)
        assert refusal.value.param == param

    async def test_rows_of_other_names_and_refusals_of_the_service_are_the_file_s(self, studio: Studio):
        file = await studio.file(b'{"Text": "a"}\n')
        with pytest.raises(openai.BadRequestError, match="no prompt") as refusal:
            await studio.client.fine_tuning.jobs.create(model="starter", training_file=file.id)
        assert refusal.value.param == "training_file"
        for refused, param in (
            (HunminError(ErrorCode.INVALID_REQUEST, "Line 2: too long.", param="dataset"), "training_file"),
            (HunminError(ErrorCode.CONFLICT, "It is the name of a model.", param="name"), "suffix"),
            (HunminError(ErrorCode.MODEL_NOT_FOUND, "There is no such model.", param="model"), "model"),
        ):
            studio.tuning.refusal = refused
            with pytest.raises(openai.APIStatusError) as refusal:
                await studio.job()
            assert refusal.value.param == param

    async def test_its_way_is_told_as_openai_tells_it(self, studio: Studio):
        job = await studio.job()
        for values, status in (
            ({"state": "preparing", "started_at": datetime.now(UTC) - timedelta(seconds=10)}, "validating_files"),
            ({"state": "running", "step": 1, "total_steps": 3}, "running"),
            ({"is_cancel_wanted": True}, "cancelled"),
            ({"state": "cancelled", "ended_at": NOW}, "cancelled"),
        ):
            studio.tuning.stands(job.id, **values)
            told = await studio.client.fine_tuning.jobs.retrieve(job.id)
            assert told.status == status
            if status == "running":
                left_s = told.estimated_finish - datetime.now(UTC).timestamp()
                assert 17 < left_s < 23
            else:
                assert told.estimated_finish is None
        failed = tuning_jobs.JobError(code="deadline_exceeded", message="It took too long.")
        studio.tuning.stands(job.id, state="failed", is_cancel_wanted=False, error=failed)
        told = await studio.client.fine_tuning.jobs.retrieve(job.id)
        assert (told.status, told.error.code, told.error.message) == ("failed", "deadline_exceeded", failed.message)

    async def test_the_end_names_the_model_its_tokens_checkpoint_and_results(self, studio: Studio):
        job = await studio.job()
        assert (await studio.client.fine_tuning.jobs.checkpoints.list(job.id)).data == []
        with pytest.raises(openai.NotFoundError):
            await studio.client.files.content("file-results-" + job.id.removeprefix("ftjob-"))
        end = {"state": "succeeded", "ended_at": NOW, "soft_prompt": "ft-reviews@3", "result": RESULT}
        studio.tuning.stands(job.id, **end, trained_tokens=30)
        job = await studio.client.fine_tuning.jobs.retrieve(job.id)
        assert (job.status, job.fine_tuned_model, job.trained_tokens) == ("succeeded", "ft-reviews@3", 30)
        assert job.finished_at == int(NOW.timestamp())
        (kept,) = [each async for each in studio.client.fine_tuning.jobs.checkpoints.list(job.id)]
        assert (kept.fine_tuned_model_checkpoint, kept.fine_tuning_job_id) == ("ft-reviews@3", job.id)
        assert (kept.step_number, kept.metrics.step, kept.metrics.full_valid_loss) == (2, 2, 0.4)
        (results,) = job.result_files
        content = (await studio.client.files.content(results)).text
        rows = list(csv.DictReader(io.StringIO(content)))
        assert [(row["step"], row["train_loss"][:4], row["valid_loss"]) for row in rows] == [
            ("1", "1.0", ""),
            ("2", "0.5", "0.4"),
            ("3", "0.33", ""),
        ]
        described = await studio.client.files.retrieve(results)
        assert (described.bytes, described.purpose) == (len(content.encode()), "fine-tune-results")
        with pytest.raises(openai.ConflictError):
            await studio.client.fine_tuning.jobs.cancel(job.id)

    async def test_they_are_listed_in_pages_and_cancelled(self, studio: Studio):
        made = [(await studio.job()).id for _ in range(3)]
        assert [job.id async for job in studio.client.fine_tuning.jobs.list(limit=2)] == made[::-1]
        job = await studio.client.fine_tuning.jobs.cancel(made[0])
        assert (job.id, job.status) == (made[0], "cancelled")
        for call in (studio.client.fine_tuning.jobs.pause, studio.client.fine_tuning.jobs.resume):
            with pytest.raises(openai.BadRequestError, match="not paused"):
                await call(made[1])

    async def test_events_are_told_newest_first_in_pages(self, studio: Studio):
        job = await studio.job()
        told = [event async for event in studio.client.fine_tuning.jobs.list_events(job.id, limit=2)]
        assert len({event.id for event in told}) == 6
        assert [(event.type, event.level) for event in told] == [
            ("message", "error"),
            ("message", "warn"),
            ("message", "info"),
            ("metrics", "info"),
            ("metrics", "info"),
            ("message", "info"),
        ]
        assert [event.message for event in told][:3] == [
            "The job has failed. The trainer was killed.",
            "The job waits for its turn. The trainer was killed.",
            "한 줄",
        ]
        assert told[3].data == {"step": 2, "full_valid_loss": 0.4}
        assert (told[4].message, told[4].data["train_loss"]) == ("Step 1/3: training loss=1.0000", 1.0)
        with pytest.raises(openai.BadRequestError) as refusal:
            await studio.client.fine_tuning.jobs.list_events(job.id, after="ftevent-" + "0" * 24 + "-1")
        assert refusal.value.param == "after"

    async def test_another_account_finds_none_of_them(self, studio: Studio):
        job = await studio.job()
        own_id = "job_" + job.id.removeprefix("ftjob-")
        foreign = studio.tuning.jobs[own_id].request.model_copy(update={"account_id": "acct_other"})
        studio.tuning.stands(job.id, request=foreign)
        jobs = studio.client.fine_tuning.jobs
        for call in (jobs.retrieve, jobs.cancel, jobs.pause, jobs.list_events, jobs.checkpoints.list):
            for job_id in (job.id, "ftjob-x"):
                with pytest.raises(openai.NotFoundError):
                    await call(job_id)
        assert (await jobs.list()).data == []


class TestClovaTasks:
    async def test_a_task_is_a_job_in_clova_s_envelope(self, studio: Studio):
        file = await studio.file(b'{"Text": "a", "Completion": "b"}\n')
        dataset = "ds_" + file.id.removeprefix("file-")
        body = {
            "name": "영화 리뷰 분류",
            "model": "starter",
            "tuningType": "PEFT",
            "taskType": "GENERATION",
            "trainEpochs": "3",
            "learningRate": "1e-5f",
            "validationSplitRatio": 0.05,
            "trainingDatasetBucket": "bucket",
            "trainingDatasetFilePath": dataset,
            "trainingDatasetAccessKey": "no",
            "trainingDatasetSecretKey": "no",
        }
        answer = (await studio.http.post("/tuning/v2/tasks", json=body)).json()
        assert answer["status"] == {"code": "20000", "message": "OK"}
        task = answer["result"]
        assert (task["name"], task["model"], task["status"]) == ("영화 리뷰 분류", "starter", "WAIT")
        assert (task["trainEpochs"], task["learningRate"], task["tunedModel"]) == (3, 1e-5, None)
        asked = studio.tuning.jobs[task["id"]].request
        assert (asked.name, asked.dataset_id) == ("clova", dataset)
        assert asked.columns == {"prompt": "Text", "completion": "Completion"}
        assert (asked.shares.train, asked.shares.validation) == (pytest.approx(0.85), 0.05)
        studio.tuning.stands(task["id"].replace("job_", "ftjob-"), state="running", step=2, total_steps=9)
        told = (await studio.http.get(f"/tuning/v2/tasks/{task['id']}")).json()["result"]
        assert told["status"] == "RUNNING"
        assert told["statusInfo"] == {"currStep": 2, "totalTrainSteps": 9, "failureReason": None}

    async def test_they_are_listed_in_pages(self, studio: Studio):
        made = [(await studio.job()).id.replace("ftjob-", "job_") for _ in range(3)][::-1]
        page = (await studio.http.get("/tuning/v2/tasks", params={"page": 1, "size": 2})).json()["result"]
        assert [task["id"] for task in page["content"]] == made[2:]
        assert (page["totalPages"], page["totalElements"], page["size"]) == (2, 3, 2)

    async def test_deleting_cancels_what_runs_and_deletes_the_model_of_what_has_succeeded(self, studio: Studio):
        for end, status in ((None, "FAILED"), ("mine@2", "SUCCEEDED")):
            job = await studio.job()
            task_id = job.id.replace("ftjob-", "job_")
            if end is not None:
                studio.tuning.stands(job.id, state="succeeded", ended_at=NOW, soft_prompt=end)
            for _ in range(2):  # what is gone stays gone
                answer = await studio.http.delete(f"/tuning/v2/tasks/{task_id}")
                assert answer.json() == {"status": {"code": "20000", "message": "OK"}}
            told = (await studio.http.get(f"/tuning/v2/tasks/{task_id}")).json()["result"]
            assert (told["status"], told["tunedModel"]) == (status, end)
        assert studio.tuning.deleted == ["mine@2"]

    @pytest.mark.parametrize(
        ("change", "status", "code", "named"),
        [
            ({"trainEpochs": 21}, 400, "40001", "trainEpochs"),
            ({"trainEpochs": "x"}, 400, "40001", "trainEpochs"),
            ({"learningRate": 0}, 400, "40001", "learningRate"),
            ({"learningRate": "nan"}, 400, "40001", "learningRate"),
            ({"loraR": 8}, 400, "40001", "loraR"),
            ({"taskType": "CLASSIFICATION"}, 400, "40001", "taskType"),
            ({"colour": 1}, 400, "40002", "colour"),
            ({"trainingDatasetFilePath": "nothing"}, 404, "40400", "nothing"),
        ],
    )
    async def test_errors_have_five_digits(self, studio: Studio, change: dict, status: int, code: str, named: str):
        body = {"model": "starter", "trainingDatasetFilePath": "reviews"} | change
        answer = await studio.http.post("/tuning/v2/tasks", json=body)
        assert (answer.status_code, answer.json()["status"]["code"]) == (status, code)
        assert named in answer.json()["status"]["message"]

    async def test_a_model_that_is_not_there_and_a_key_that_is_not_valid(self, studio: Studio):
        file = await studio.file()
        studio.tuning.refusal = HunminError(ErrorCode.MODEL_NOT_FOUND, "There is no such model.", param="model")
        body = {"model": "x", "trainingDatasetFilePath": "ds_" + file.id.removeprefix("file-")}
        answer = await studio.http.post("/tuning/v2/tasks", json=body)
        assert (answer.status_code, answer.json()["status"]["code"]) == (400, "40080")
        answer = await studio.http.get("/tuning/v2/tasks", headers={"authorization": "Bearer no"})
        assert (answer.status_code, answer.json()["status"]["code"]) == (401, "40104")
        answer = await studio.http.get("/tuning/v2/tasks/job_" + "0" * 24)
        assert (answer.status_code, answer.json()["status"]["code"]) == (404, "40400")

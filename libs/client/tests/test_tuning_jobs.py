"""Datasets and tuning jobs by both clients, against a server that answers as the test tells it."""

import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from hunmin import (
    ApiError,
    AsyncClient,
    Client,
    Hyperparameters,
    Retries,
    TuningTemplate,
    UnavailableError,
    UnexpectedAnswerError,
    UnreachableError,
)

SOON = Retries(limit=2, first_s=0.001, longest_s=0.01)
TEMPLATE = TuningTemplate(prompt="{text}<|VIRTUAL_PROMPT_0|>", answer="{label}", verbalizers={"0": "나", "1": "좋"})
AT = "2026-11-28T00:00:00Z"
DATASET = {
    "id": "dataset_1",
    "name": "reviews",
    "version": 1,
    "format": "csv",
    "encoding": "utf-8",
    "columns": ["text", "label"],
    "rows": 3,
    "digest": "0",
    "size_bytes": 3,
    "findings": [],
    "created_at": AT,
}
JOB = {
    "id": "job_1",
    "request": {
        "account_id": "account_1",
        "dataset_id": "dataset_1",
        "name": "reviews",
        "model": "starter",
        "template": TEMPLATE.model_dump(mode="json"),
    },
    "state": "queued",
    "attempt": 1,
    "is_cancel_wanted": False,
    "step": 0,
    "created_at": AT,
    "started_at": None,
    "ended_at": None,
    "queue": {"position": 2, "starts_in_s": None},
    "error": None,
    "result": None,
    "soft_prompt": None,
    "new": "of a newer server",
}
STEP = {
    "kind": "step",
    "step": 1,
    "total_steps": 2,
    "epoch": 0,
    "loss": 0.5,
    "learning_rate": 0.01,
    "gradient_norm": 1.0,
    "tokens": 5,
    "duration_s": 0.1,
}

Ask = Callable[..., Awaitable[Any]]
Answer = Callable[[httpx.Request], httpx.Response]


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in pieces, and breaks at an exception among them."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def event(sequence: int, kind: str, **told: Any) -> bytes:
    data = {"type": kind, "sequence": sequence, "at": AT} | told
    return f"event: {kind}\nid: {sequence}\ndata: {json.dumps(data)}\n\n".encode()


def log(sequence: int) -> bytes:
    return event(sequence, "log", line=f"line {sequence}\u2028goes on")


def stream(*pieces: bytes | Exception) -> httpx.Response:
    headers = {"content-type": "text/event-stream; charset=utf-8"}
    return httpx.Response(200, headers=headers, stream=Pieces(b"retry: 2000\n\n", *pieces))


@pytest.fixture
def sent() -> list[httpx.Request]:
    return []


@pytest.fixture(params=["blocking", "awaited"])
def ask(request: pytest.FixtureRequest, sent: list[httpx.Request]) -> Ask:
    """Make a call, or read all items of what it returns, while the server answers with these, one by one."""

    def transport(answers: tuple[Any, ...]) -> httpx.MockTransport:
        waiting = iter(answers)

        def answer(request: httpx.Request) -> httpx.Response:
            sent.append(request)
            found = next(waiting)
            if isinstance(found, Exception):
                raise found
            return found if isinstance(found, httpx.Response) else httpx.Response(200, json=found)

        return httpx.MockTransport(answer)

    async def blocking(call: Callable[[Client], Any], *answers: Any) -> Any:
        with Client(api_key="k", transport=transport(answers), retries=SOON) as client:
            found = call(client)
            return [*found] if hasattr(found, "__next__") else found

    async def awaited(call: Callable[[AsyncClient], Any], *answers: Any) -> Any:
        async with AsyncClient(api_key="k", transport=transport(answers), retries=SOON) as client:
            found = call(client)
            return [item async for item in found] if hasattr(found, "__anext__") else await found

    return blocking if request.param == "blocking" else awaited


def upload(**more: Any) -> Callable[[Any], Any]:
    return lambda client: client.datasets.upload(more.pop("file"), name="reviews", **more)


class TestUploads:
    @pytest.mark.parametrize("kind", ["path", "bytes", "file"])
    async def test_bring_the_file_by_its_name(self, ask, sent, tmp_path, kind):
        path = tmp_path / "리뷰.csv"
        path.write_bytes(b"text,label\n")
        with path.open("rb") as opened:
            opened.read(3)  # it is read from its beginning all the same
            file = {"path": path, "bytes": path.read_bytes(), "file": opened}[kind]
            info = await ask(upload(file=file), DATASET)
        assert info.id == "dataset_1"
        (request,) = sent
        assert request.url.path == "/studio/v1/datasets"
        assert b'name="name"\r\n\r\nreviews\r\n' in request.content
        assert b"\r\n\r\ntext,label\n\r\n" in request.content
        filename = "dataset" if kind == "bytes" else "리뷰.csv"
        assert f'filename="{filename}"'.encode() in request.content

    async def test_go_out_whole_again_after_a_broken_connection(self, ask, sent):
        await ask(upload(file=io.BytesIO(b"text\nabc\n"), filename="a.csv"), httpx.ReadError(""), DATASET)
        assert len(sent) == 2
        assert all(b"\r\n\r\ntext\nabc\n\r\n" in request.content for request in sent)

    async def test_may_take_the_studio_long(self, ask, sent):
        await ask(upload(file=b"text\n"), DATASET)
        await ask(lambda client: client.datasets.get("reviews"), DATASET)
        assert [request.extensions["timeout"]["read"] for request in sent] == [3600, 120]
        assert sent[0].extensions["timeout"]["connect"] == 5

    async def test_of_what_cannot_be_read_twice_are_refused(self, ask, tmp_path):
        class Pipe(io.BytesIO):
            def seekable(self) -> bool:
                return False

        with pytest.raises(ValueError, match="cannot seek"):
            await ask(upload(file=Pipe(b"text\n")))
        with pytest.raises(FileNotFoundError):
            await ask(upload(file=tmp_path / "nowhere.csv"))


class TestDatasets:
    async def test_are_listed_over_pages(self, ask, sent):
        pages = [{"data": [DATASET], "next_cursor": "dataset_1"}, {"data": [DATASET], "next_cursor": None}]
        assert len(await ask(lambda client: client.datasets.list(name="reviews"), *pages)) == 2
        assert [dict(request.url.params).get("cursor") for request in sent] == [None, "dataset_1"]

    async def test_are_judged_for_what_a_job_would_be_given(self, ask, sent):
        report = {"dataset_id": "dataset_1", "name": "reviews", "version": 1, "passes": True, "rows": 3}
        report |= {"splits": {"train": 3}, "labels": None, "tokens": {"mean": 1, "longest": 2, "total": 3}}
        report |= {"context_length": 9, "findings": []}
        asked = {"template": TEMPLATE, "model": "starter", "slots": [3], "columns": {"text": "글"}}
        found = await ask(lambda client: client.datasets.report("reviews@1", **asked), report)
        assert found.passes
        (request,) = sent
        assert request.url.path == "/studio/v1/datasets/reviews@1/report"
        body = json.loads(request.content)
        assert (body["slots"], body["columns"], body["template"]["answer"]) == ([3], {"text": "글"}, "{label}")

    async def test_show_rows(self, ask, sent):
        row = {"line": 2, "fields": {"text": "가"}}
        found = await ask(lambda client: client.datasets.rows("reviews", limit=1, seed=0), {"rows": [row]})
        assert found.rows[0].fields == {"text": "가"}
        assert dict(sent[0].url.params) == {"limit": "1", "offset": "0", "seed": "0"}

    @pytest.mark.parametrize(("reference", "times"), [("reviews@1", 3), ("reviews", 1)])
    async def test_are_deleted_once(self, ask, sent, reference, times):
        with pytest.raises(UnreachableError):
            await ask(lambda client: client.datasets.delete(reference), *[httpx.ReadError("")] * 3)
        assert len(sent) == times


class TestJobs:
    async def test_are_previewed_with_given_rows_or_those_of_a_dataset(self, ask, sent):
        row = {"line": 1, "text": "가나", "tokens": [{"id": 5, "text": "가", "kind": "field"}]}
        answer = {"served": "{text}", "examples": [], "context_length": 9, "rows": [row]}
        asked = {"template": TEMPLATE, "model": "starter"}
        shown = await ask(lambda client: client.tuning_jobs.preview(rows=[{"text": "가"}], slots=[3], **asked), answer)
        assert shown.rows[0].tokens[0].kind == "field"
        body = json.loads(sent[0].content)
        assert (sent[0].url.path, body["slots"]) == ("/studio/v1/tuning/preview", [3])
        assert (body["rows"], "dataset" in body) == ([{"text": "가"}], False)
        with pytest.raises(ValueError, match="and not both"):
            await ask(lambda client: client.tuning_jobs.preview(**asked))

    async def test_are_asked_for_with_what_was_given_and_no_more(self, ask, sent):
        def create(client: Any) -> Any:
            hyperparameters = Hyperparameters(patience=None, epochs=2)
            return client.tuning_jobs.create(
                name="reviews", model="starter", dataset="reviews@1", template=TEMPLATE, hyperparameters=hyperparameters
            )

        job = await ask(create, JOB)
        assert (job.id, job.queue.position) == ("job_1", 2)
        body = json.loads(sent[0].content)
        assert body.keys() == {"name", "model", "dataset", "template", "hyperparameters"}
        assert body["hyperparameters"] == {"patience": None, "epochs": 2}

    async def test_are_not_asked_for_twice(self, ask, sent):
        asked = {"name": "reviews", "model": "starter", "dataset": "reviews", "template": TEMPLATE}
        with pytest.raises(UnreachableError):
            await ask(lambda client: client.tuning_jobs.create(**asked), httpx.ReadError(""))
        with pytest.raises(ValueError, match="answer"):
            await ask(lambda client: client.tuning_jobs.create(**asked | {"template": {"prompt": "{text}"}}))
        assert len(sent) == 1

    async def test_are_cancelled_and_listed(self, ask, sent):
        await ask(lambda client: client.tuning_jobs.cancel("job_1"), JOB)
        page = {"data": [JOB], "next_cursor": None}
        (job,) = await ask(lambda client: client.tuning_jobs.list(state="queued"), page)
        assert job.state == "queued"
        assert [(request.method, request.url.path) for request in sent] == [
            ("POST", "/studio/v1/tuning/jobs/job_1/cancel"),
            ("GET", "/studio/v1/tuning/jobs"),
        ]

    async def test_tell_their_metrics_over_pages(self, ask, sent):
        pages = [{"data": [STEP], "last": 7, "has_more": True}, {"data": [STEP | {"step": 2}], "last": 9}]
        pages[1]["has_more"] = False
        found = await ask(lambda client: client.tuning_jobs.metrics("job_1", kind="step"), *pages)
        assert [one.step for one in found] == [1, 2]
        assert [dict(request.url.params).get("after") for request in sent] == [None, "7"]

    async def test_are_waited_for_with_a_word_at_each_change(self, ask):
        told = []
        running = JOB | {"state": "running", "queue": None}

        def wait(client: Any) -> Any:
            return client.tuning_jobs.wait("job_1", on_change=lambda job: told.append(job.state), poll_s=0.001)

        job = await ask(wait, JOB, JOB, running, running, running | {"state": "failed"})
        assert job.state == "failed"
        assert told == ["queued", "running", "failed"]
        with pytest.raises(TimeoutError, match=r"job_1 did not come to an end in 0\.1 s"):
            await ask(lambda client: client.tuning_jobs.wait("job_1", poll_s=1, timeout_s=0.1), JOB)


def follow(after: int = 0) -> Callable[[Any], Any]:
    return lambda client: client.tuning_jobs.events("job_1", after=after)


class TestEvents:
    async def test_come_typed_and_in_order(self, ask, sent):
        state = event(1, "state", state="running", attempt=1, is_cancel_wanted=False)
        cut = log(3)
        pieces = (state, b": nothing new\n\n", event(2, "metrics", metrics=STEP) + cut[:20], cut[20:])
        told = await ask(follow(), stream(*pieces))
        assert [one.sequence for one in told] == [1, 2, 3]
        assert (told[0].state, told[1].metrics.loss) == ("running", 0.5)
        assert told[2].line == "line 3\u2028goes on"
        assert sent[0].headers["accept"] == "text/event-stream"
        assert "last-event-id" not in sent[0].headers

    async def test_go_on_behind_the_last_after_whatever_cut_them_off(self, ask, sent):
        problem = {"type": "", "title": "", "status": 503, "code": "unavailable", "detail": "The service restarts."}
        failed = f"event: error\ndata: {json.dumps(problem)}\n\n".encode()
        answers = (
            httpx.ConnectError("refused"),
            stream(log(5), log(6)[:10], httpx.ReadError("broken")),
            stream(log(6), failed),
            httpx.Response(503),
            *(stream(httpx.ReadTimeout("silence")) for _ in range(5)),  # however long nothing happens
            stream(log(7)),
        )
        told = await ask(follow(after=4), *answers)
        assert [one.sequence for one in told] == [5, 6, 7]
        assert [request.headers["last-event-id"] for request in sent] == [*"445", *"6666666"]

    async def test_of_a_newer_server_are_passed_over(self, ask):
        told = await ask(follow(), stream(event(1, "weather", sun=True), log(2)))
        assert [one.sequence for one in told] == [2]

    @pytest.mark.parametrize(
        ("answer", "error", "times"),
        [
            (lambda: httpx.Response(404), ApiError, 1),
            (lambda: stream(b"event: error\ndata: {}\n\n"), ApiError, 1),
            (lambda: stream(httpx.ReadError("")), UnreachableError, 3),
            (lambda: httpx.Response(503), UnavailableError, 3),
            (lambda: httpx.Response(200, text="<html>"), UnreachableError, 3),
            (lambda: stream(b"event: log\nid: 1\ndata: 1\n\n"), UnexpectedAnswerError, 1),
        ],
    )
    async def test_that_do_not_come_are_an_error(self, ask, sent, answer, error, times):
        with pytest.raises(error):
            await ask(follow(), *(answer() for _ in range(5)))
        assert len(sent) == times


class TestNames:
    @pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
    async def test_that_lead_elsewhere_are_refused_before_anything_is_sent(self, ask, sent, name):
        for call in (
            lambda client: client.datasets.delete(name),
            lambda client: client.soft_prompts.get(name),
            lambda client: client.tuning_jobs.events(name),
        ):
            with pytest.raises(ValueError, match="names nothing"):
                await ask(call)
        assert sent == []

    async def test_and_texts_that_are_no_unicode_too(self, ask, sent):
        broken = b"\xff".decode(errors="surrogateescape")
        for call in (
            lambda client: client.score(model="starter", prompt=broken, continuations=["a"]),
            lambda client: client.tokenizers.encode("starter", broken),
            lambda client: client.tokenizers.encode(broken, "a"),
            lambda client: client.datasets.list(name=broken),
            lambda client: client.datasets.upload(b"a", name=broken),
        ):
            with pytest.raises(ValueError, match="half of a surrogate pair"):
                await ask(call)
        assert sent == []

"""`hunmin tune` and `hunmin jobs` against a studio that tells what the test wants to see told. The real one: e2e."""

import argparse
import io
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hunmin import Client, Retries, UnavailableError
from hunmin.cli import jobs as jobs_command
from hunmin.cli import tune as tune_command
from hunmin.cli.plan import plan_of
from hunmin.cli.terminal import Exit, UsageError, run
from rich.console import Console

AT = "2026-11-28T00:00:00Z"
TASK = ["--prompt", "{text}<|VIRTUAL_PROMPT_0|>", "--answer", "{label}", "--verbalizer", "0= 나쁨", "1= 좋음"]
EVALUATION = {"rows": 6, "loss": 0.7, "accuracy": 0.5, "macro_f1": 0.4}
PRODUCT = {
    "name": "sentiment",
    "title": "",
    "description": "",
    "template": {"prompt": "{text}<|VIRTUAL_PROMPT_0|>", "answer": "{label}", "verbalizers": {"0": "나", "1": "좋"}},
    "hyperparameters": {"slots": [9], "epochs": 3},
    "shares": {"train": 5, "validation": 1, "test": 4},
    "trial": {"text": "가"},
    "sample": {"filename": "a.tsv", "format": "tsv", "columns": [], "rows": 1, "size_bytes": 1}
    | {"license": "CC0", "source": ""},
}
RESULT = {
    "steps": 40,
    "best_step": 20,
    "stopped_early": True,
    "train_loss": 0.1,
    "validation_loss": 0.2,
    "zero_shot": EVALUATION,
    "few_shot": EVALUATION | {"accuracy": 0.55},
    "tuned": EVALUATION | {"accuracy": 0.875, "loss": 0.25},
    "weights_digest": "0",
}


def step(number: int) -> dict[str, Any]:
    told = {"kind": "step", "step": number, "total_steps": 40, "epoch": 0, "loss": 1 / number, "tokens": 5}
    return told | {"learning_rate": 0.01, "gradient_norm": 1.0, "duration_s": 0.1}


@dataclass
class Studio:
    """A studio with one dataset and one job, whose states come one after another."""

    passes: bool = True
    queue: list[int] = field(default_factory=lambda: [2, 1])
    end: str = "succeeded"
    prompt: str = TASK[1]
    interrupts: int = 0  # before the events go on
    is_away: int = 0  # for so many requests for events
    asked: list[httpx.Request] = field(default_factory=list)
    state: str = "queued"
    job_id: str = "job_1"

    def client(self) -> Client:
        transport, retries = httpx.MockTransport(self.answer), Retries(limit=1, first_s=0.001)
        return Client(api_key="k", base_url="http://studio.example/", transport=transport, retries=retries)

    def body(self, path: str) -> Any:
        (request,) = [request for request in self.asked if (request.method, request.url.path) == ("POST", path)]
        return json.loads(request.content)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        match request.method, request.url.path.removeprefix("/studio/v1/").split("/"):
            case "GET", ["products", "sentiment"]:
                return httpx.Response(200, json=PRODUCT)
            case "GET", ["products", "sentiment", "sample"]:
                return httpx.Response(200, text="text\tlabel\n가\t1\n")
            case "POST", ["datasets"]:
                return httpx.Response(201, json=self.dataset())
            case "GET", ["datasets", _]:
                return httpx.Response(200, json=self.dataset())
            case "POST", ["datasets", "dataset_1", "report"]:
                return httpx.Response(200, json=self.report())
            case "GET", ["datasets", "dataset_1", "rows"]:
                return httpx.Response(200, json={"rows": [{"line": 2, "fields": {"text": "it's\n좋다", "label": "1"}}]})
            case "GET", ["tuning", "jobs"]:
                return httpx.Response(200, json={"data": [self.job()] * 2, "next_cursor": "job_1"})
            case "POST", ["tuning", "jobs"]:
                return httpx.Response(201, json=self.job())
            case "POST", ["tuning", "jobs", "job_1", "cancel"]:
                self.end = "cancelled"
                return httpx.Response(200, json=self.job())
            case "GET", ["tuning", "jobs", "job_1"]:
                if self.queue:
                    self.queue.pop(0)
                elif self.state == "queued":
                    self.state = "running"
                return httpx.Response(200, json=self.job())
            case "GET", ["tuning", "jobs", "job_1", "events"]:
                if self.is_away:
                    self.is_away -= 1
                    return httpx.Response(503, json={"code": "unavailable", "detail": "The studio restarts."})
                after = int(request.headers.get("last-event-id", 0))
                return httpx.Response(
                    200, headers={"content-type": "text/event-stream"}, stream=Events(self.events(after))
                )
        return httpx.Response(404, json={"code": "not_found", "detail": f"There is no {request.url.path}."})

    def dataset(self) -> dict[str, Any]:
        told = {"id": "dataset_1", "name": "reviews", "version": 3, "format": "csv", "encoding": "utf-8", "rows": 60}
        return told | {"columns": [], "digest": "0", "size_bytes": 1, "findings": [], "created_at": AT}

    def report(self) -> dict[str, Any]:
        finding = {"kind": "empty_value", "severity": "warning" if self.passes else "error", "count": 30}
        finding |= {"message": "The field [text] is empty.", "lines": [2, 3]}
        told = {"dataset_id": "dataset_1", "name": "reviews", "version": 3, "passes": self.passes, "rows": 60}
        told |= {"splits": {"train": 48, "validation": 6, "test": 6}, "labels": {"0": 30, "1": 30}}
        return told | {
            "tokens": {"mean": 9.4, "longest": 20, "total": 564},
            "context_length": 256,
            "findings": [finding],
        }

    def job(self) -> dict[str, Any]:
        template = {"prompt": self.prompt, "answer": "{label}", "verbalizers": {"0": " 나쁨", "1": " 좋음"}}
        request = {
            "name": "good",
            "model": "starter",
            "template": template,
            "account_id": "a",
            "dataset_id": "dataset_1",
        }
        place = {"position": self.queue[0], "starts_in_s": 300} if self.state == "queued" and self.queue else None
        told = {"id": self.job_id, "request": request, "state": self.state, "attempt": 1, "is_cancel_wanted": False}
        told |= {"step": 0, "total_steps": None, "created_at": AT, "started_at": None, "ended_at": None, "queue": place}
        error = {"code": "internal", "message": "The process was killed."} if self.state == "failed" else None
        done = self.state == "succeeded"
        return told | {
            "error": error,
            "result": RESULT if done else None,
            "soft_prompt": "good@2" if done else None,
        }

    def events(self, after: int) -> Iterator[bytes]:
        state = {"attempt": 1, "is_cancel_wanted": False}
        told = [("state", {"state": "running"} | state), ("log", {"line": "loading"})]
        told += [("metrics", {"metrics": step(number)}) for number in range(1, 41)]
        validation = {"kind": "validation", "step": 20, "loss": 0.3, "accuracy": 0.8, "is_best": True}
        told.insert(22, ("metrics", {"metrics": validation}))
        told.append(("state", {"state": self.end} | state))
        for number, (kind, what) in enumerate(told, start=1):
            if number == 5 and self.interrupts:
                self.interrupts -= 1
                raise KeyboardInterrupt
            if number > after:
                data = json.dumps({"type": kind, "sequence": number, "at": AT} | what)
                yield f"event: {kind}\nid: {number}\ndata: {data}\n\n".encode()
        self.state = self.end


class Events(httpx.SyncByteStream):
    """Events as a body."""

    def __init__(self, events: Iterator[bytes]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[bytes]:
        return self._events


Run = Callable[..., tuple[Exit, str]]


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    tune_command.add(commands)
    jobs_command.add(commands)
    return parser.parse_args(arguments)


@pytest.fixture
def reviews(tmp_path: Path) -> str:
    path = tmp_path / "영화 리뷰.csv"
    path.write_text("text,label\n", encoding="utf-8")
    return str(path)


def ran(studio: Studio, *arguments: str, terminal: bool = False) -> tuple[Exit, str]:
    """Run a subcommand; return how it ended, and what it wrote."""
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)
    act = tune_command.tune if arguments[0] == "tune" else jobs_command.jobs
    with studio.client() as client:
        status = act(parsed(*arguments), client, console)
    return status, console.file.getvalue()


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_command, "_POLL_S", 0.001)


class TestTune:
    def test_goes_from_a_file_to_a_served_soft_prompt(self, reviews):
        studio = Studio()
        more = [
            "--name",
            "good",
            "--encoder",
            "mlp",
            "--slots",
            "3,4",
            "--train-rows",
            "40",
            "--shares",
            "8,1,1",
            "--seed",
            "7",
        ]
        status, shown = ran(studio, "tune", reviews, "--name", "good", *more, "--patience", "never", *TASK)
        assert status == Exit.DONE
        lines = shown.splitlines()
        assert lines[:8] == [
            "reviews@3: 60 rows (48 train, 6 validation, 6 test)",
            "labels: 0 30, 1 30",
            "tokens of a row: 9 on average, 20 at most, of 256 that fit",
            "warning: The field [text] is empty. (line 2, 3, …)",
            "job_1 learns good for starter",
            "queued, number 1, starts in about 5 min",
            "queued",
            "running",
        ]
        steps = [line for line in lines if line.startswith("step ")]
        assert len(steps) == 21  # a twentieth each, and the validation
        assert steps[0] == "step 2 of 40: loss 0.500"
        assert steps[10] == "step 20: validation loss 0.300, accuracy 80.0% (the best so far)"
        table = [line.split() for line in lines if line.startswith("  ") and "%" in line]
        assert [row[-3:] for row in table] == [
            ["50.0%", "40.0%", "0.700"],
            ["55.0%", "40.0%", "0.700"],
            ["87.5%", "40.0%", "0.250"],
        ]
        assert "40 steps, stopped early; the soft prompt of step 20 is kept" in lines
        assert "good@2 is served. Ask it:" in lines
        judged = studio.body("/studio/v1/datasets/dataset_1/report")
        assert (judged["slots"], judged["train_rows"], judged["example_seed"]) == ([3, 4], 40, 7)
        asked = studio.body("/studio/v1/tuning/jobs")
        assert asked["hyperparameters"] == {"encoder": "mlp", "slots": [3, 4], "seed": 7, "patience": None}
        assert asked["train_rows"] == 40
        assert asked["shares"] == {"train": 8, "validation": 1, "test": 1}
        assert (asked["name"], asked["model"], asked["dataset"]) == ("good", "starter", "dataset_1")
        assert asked["template"]["verbalizers"] == {"0": " 나쁨", "1": " 좋음"}

    def test_names_the_file_as_it_lies_there(self, reviews):
        for terminal in (False, True):
            studio = Studio(passes=False)
            ran(studio, "tune", reviews, "--name", "good", *TASK, terminal=terminal)
            assert 'filename="영화 리뷰.csv"'.encode() in studio.asked[0].content
            assert b"\r\n\r\ntext,label\n\r\n" in studio.asked[0].content

    def test_shows_a_request_that_a_shell_takes(self, reviews):
        _, shown = ran(Studio(), "tune", reviews, "--name", "good", *TASK)
        command = shlex.split(shown[shown.index("curl ") :])
        assert command[1] == "http://studio.example/v1/completions"
        body = json.loads(command[command.index("-d") + 1])
        assert body == {"model": "good@2", "prompt": "it's\n좋다", "max_tokens": 5, "temperature": 0}

    def test_of_several_fields_asks_for_scores(self, reviews):
        _, shown = ran(Studio(prompt="{text}{label}<|VIRTUAL_PROMPT_0|>"), "tune", reviews, "--name", "good", *TASK)
        command = shlex.split(shown[shown.index("curl ") :])
        assert command[1] == "http://studio.example/studio/v1/score"
        body = json.loads(command[command.index("-d") + 1])
        assert (body["prompt"]["label"], body["continuations"]) == ("1", [" 나쁨", " 좋음"])

    def test_starts_no_job_from_a_dataset_that_does_not_pass(self, reviews, capsys):
        studio = Studio(passes=False)
        status, shown = ran(studio, "tune", reviews, "--name", "good", *TASK)
        assert status == Exit.UNFIT_DATASET
        assert "error: The field [text] is empty. (line 2, 3, …)" in shown
        assert "cannot be learned from" in capsys.readouterr().err
        assert not any("tuning/jobs" in request.url.path for request in studio.asked)

    def test_takes_a_dataset_that_is_there_and_leaves_at_once_if_asked_to(self):
        studio = Studio()
        status, shown = ran(studio, "tune", "--dataset", "reviews@3", "--name", "good", "--detach", *TASK)
        assert status == Exit.DONE
        assert shown.endswith("hunmin tune --follow job_1\n")
        assert studio.asked[0].url.path == "/studio/v1/datasets/reviews@3"

    def test_begins_with_what_ships_and_changes_what_is_given(self, reviews):
        studio = Studio()
        given = ["--product", "sentiment", "--epochs", "1", "--answer", "{label}."]
        assert ran(studio, "tune", *given, "--detach")[0] == Exit.DONE
        upload = next(request for request in studio.asked if request.url.path == "/studio/v1/datasets").content
        assert b'filename="a.tsv"' in upload
        assert "\r\n\r\ntext\tlabel\n가\t1\n\r\n".encode() in upload
        asked = studio.body("/studio/v1/tuning/jobs")
        assert (asked["name"], asked["shares"]) == ("sentiment", PRODUCT["shares"])
        assert asked["template"] == PRODUCT["template"] | {"answer": "{label}."}
        assert asked["hyperparameters"] == {"slots": [9], "epochs": 1}
        studio = Studio()
        ran(studio, "tune", reviews, *given, "--name", "good", "--detach")
        assert "영화 리뷰.csv".encode() in studio.asked[1].content
        assert studio.body("/studio/v1/tuning/jobs")["name"] == "good"

    def test_needs_something_to_learn_from(self):
        with pytest.raises(UsageError, match="name a FILE"):
            ran(Studio(), "tune", "--name", "good", *TASK)

    @pytest.mark.parametrize("end", ["failed", "cancelled"])
    def test_says_why_a_job_brought_nothing(self, end, capsys):
        status, _ = ran(Studio(end=end), "tune", "--follow", "job_1")
        assert status == Exit.JOB_ENDED
        message = capsys.readouterr().err
        assert message.startswith(f"hunmin: job_1 {end}")
        assert ("The process was killed." in message) == (end == "failed")
        assert "hunmin jobs logs job_1" in message

    def test_waits_for_a_studio_that_is_away(self, monkeypatch):
        status, shown = ran(Studio(queue=[], is_away=5), "tune", "--follow", "job_1")
        assert status == Exit.DONE
        assert shown.count("no answer, trying again: 503 unavailable: The studio restarts.\n") == 1
        monkeypatch.setattr(tune_command, "_AWAY_S", 0)
        with pytest.raises(UnavailableError):
            ran(Studio(queue=[], is_away=5), "tune", "--follow", "job_1")

    def test_draws_a_bar_in_a_terminal(self, reviews):
        status, shown = ran(Studio(), "tune", reviews, "--name", "good", *TASK, terminal=True)
        assert status == Exit.DONE
        assert "━" in shown
        assert "40/40" in shown
        assert "validation loss 0.300, accuracy 80.0%" in shown
        assert "step 2 of 40" not in shown


class TestInterruption:
    def test_leaves_the_job_alone_where_nobody_can_be_asked(self):
        studio = Studio(queue=[], interrupts=1)
        status, shown = ran(studio, "tune", "--follow", "job_1")
        assert status == Exit.INTERRUPTED
        assert shown.endswith("hunmin tune --follow job_1\n")
        assert not any(request.url.path.endswith("cancel") for request in studio.asked)

    def test_while_it_uploads_ends_quietly(self, reviews, monkeypatch, capsys):
        monkeypatch.setenv("HUNMIN_API_KEY", "k")

        def interrupted(client: Client, console: Console) -> Exit:
            raise KeyboardInterrupt

        assert run(interrupted) == 130
        assert capsys.readouterr().err == "hunmin: interrupted.\n"


class TestArguments:
    def test_may_stand_in_a_file_and_be_overridden(self, tmp_path):
        path = tmp_path / "task.json"
        path.write_text(json.dumps({"prompt": "{a}", "answer": "{b}", "separator": "\n"}), encoding="utf-8")
        plan = plan_of(parsed("tune", "x.csv", "--name", "good", "--template", str(path), "--answer", "{c}"))
        assert plan.template.model_dump(exclude_unset=True) == {"prompt": "{a}", "answer": "{c}", "separator": "\n"}
        plan = plan_of(parsed("tune", "x.csv", "--name", "good", *TASK, "--column", "text=글", "--column", "label=a=b"))
        assert plan.columns == {"text": "글", "label": "a=b"}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "--verbalizer"),
            (["--prompt", "{a}"], "--verbalizer"),
            ([*TASK, "--epochs", "0"], "epochs: Input should be greater than or equal to 1"),
            (["--prompt", "{a}", "--answer", "{b}", "--verbalizer", "0=a"], "verbalizers: .* at least 2 items"),
            (["--template", __file__], "is no JSON"),
        ],
    )
    def test_that_make_no_plan_are_refused(self, arguments, message):
        with pytest.raises(UsageError, match=message):
            plan_of(parsed("tune", "x.csv", "--name", "good", *arguments))

    @pytest.mark.parametrize(
        "arguments",
        [
            ["tune", "a.csv", "--follow", "job_1"],
            ["tune", "a.csv", "--verbalizer", "0"],
            ["tune", "a.csv", "--slots", "a"],
            ["tune", "a.csv", "--shares", "1,2"],
        ],
    )
    def test_that_argparse_cannot_read_are_refused(self, arguments, capsys):
        with pytest.raises(SystemExit) as end:
            parsed(*arguments)
        assert end.value.code == Exit.USAGE
        assert "error: " in capsys.readouterr().err

    def test_without_a_key_say_how_to_get_one(self, monkeypatch, capsys):
        monkeypatch.delenv("HUNMIN_API_KEY", raising=False)
        options = parsed("tune", "a.csv", "--name", "good", *TASK)
        assert options.act(options) == Exit.FAILED
        assert "HUNMIN_API_KEY" in capsys.readouterr().err


class TestJobs:
    def test_are_listed_in_a_table(self):
        studio = Studio(state="succeeded")
        status, shown = ran(studio, "jobs", "list", "--limit", "3", "--state", "succeeded")
        assert status == Exit.DONE
        rows = [line.split() for line in shown.splitlines() if "job_1" in line]
        assert [row[:4] for row in rows] == [["job_1", "succeeded", "good@2", "starter"]] * 3
        assert dict(studio.asked[0].url.params) == {"state": "succeeded", "limit": "3"}

    def test_have_their_ids_in_one_piece_however_narrow_the_terminal(self):
        studio = Studio(state="succeeded", job_id="job_" + "0123456789" * 4)
        _, shown = ran(studio, "jobs", "list", "--limit", "1")
        assert studio.job_id in shown

    def test_are_shown_cancelled_and_read(self):
        _, shown = ran(Studio(queue=[], state="succeeded"), "jobs", "show", "job_1")
        assert "job_1: succeeded" in shown
        assert "87.5%" in shown
        _, shown = ran(Studio(queue=[], state="running"), "jobs", "cancel", "job_1")
        assert shown == "job_1 ends soon\n"
        _, shown = ran(Studio(), "jobs", "logs", "job_1")
        assert shown == "loading\n"

    def test_that_are_not_there_are_an_error(self, monkeypatch, capsys):
        monkeypatch.setenv("HUNMIN_API_KEY", "k")
        monkeypatch.setenv("HUNMIN_BASE_URL", "http://127.0.0.1:1")
        options = parsed("jobs", "show", "a/b")
        assert options.act(options) == Exit.FAILED
        assert "names nothing" in capsys.readouterr().err

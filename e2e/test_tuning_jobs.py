"""Tuning jobs through the studio: from a file to a served soft prompt, and on through every kill."""

import json
import os
import random
import secrets
import time
from collections.abc import Iterator
from itertools import count

import httpx
import psutil
import pytest
from hunmin_contracts.datasets import Shares
from hunmin_tuning.datasets.splits import assign

JOBS, DATASETS = "/studio/v1/tuning/jobs", "/studio/v1/datasets"
TEMPLATE = {
    "prompt": "{text}<|VIRTUAL_PROMPT_0|> 평가:",
    "answer": "{label}",
    "verbalizers": {"1": " 긍정", "0": " 부정"},
}
SHARES = {"train": 0.6, "validation": 0.1, "test": 0.3}
FAST = {"slots": [4], "epochs": 2, "batch_size": 8, "seed": 3}
WORDS = {"1": ("정말 재미있다", "최고의 감동", "또 보고 싶다"), "0": ("너무 지루하다", "시간이 아깝다", "돈이 아깝다")}
ROWS = [(f"{WORDS[str(n % 2)][n % 3]} {n}번째로 본 영화", str(n % 2)) for n in range(80)]
ENDED = ("succeeded", "failed", "cancelled")
PATIENCE_S = 300


@pytest.fixture
def http(studio) -> Iterator[httpx.Client]:
    with studio.http() as client:
        yield client


def uploaded(http: httpx.Client, rows: list[tuple[str, str]] = ROWS) -> str:
    table = "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
    answer = http.post(DATASETS, data={"name": f"e2e-{secrets.token_hex(6)}"}, files={"file": ("r.csv", table)})
    assert answer.status_code == 201, answer.text
    return answer.json()["name"]


def plan(studio, dataset: str, **changes: object) -> dict:
    """A job of its own name, which is the dataset's."""
    fixed = {"name": dataset, "model": studio.model, "dataset": dataset, "template": TEMPLATE, "shares": SHARES}
    return fixed | {"split_seed": 5, "hyperparameters": FAST} | changes


def created(http: httpx.Client, body: dict) -> str:
    answer = http.post(JOBS, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def told(http: httpx.Client, job: str, *, after: int = 0, until: int | None = None) -> list[dict]:
    """What the job tells as server-sent events, to its end or to event number `until`."""
    found = []
    headers = {"last-event-id": str(after)} if after else {}
    with http.stream("GET", f"{JOBS}/{job}/events", headers=headers, timeout=PATIENCE_S) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
                continue
            if "data" in event:
                data = json.loads(event["data"])
                assert (event["event"], int(event["id"])) == (data["type"], data["sequence"])
                found.append(data)
                if data["sequence"] == until:
                    break
            event = {}
    return found


def wait_until(http: httpx.Client, job: str, is_so) -> dict:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = http.get(f"{JOBS}/{job}")
        info = answer.json()
        if answer.status_code == 200 and is_so(info):
            return info
        # Behind a kill a connection may break off once.
        assert answer.status_code == 503 or info["state"] not in ENDED, info
        assert time.monotonic() < deadline, info
        time.sleep(0.1)


def ended(info: dict) -> bool:
    return info["state"] in ENDED


def trainers(job: str) -> list[psutil.Process]:
    """The processes that train it, on this machine."""
    return [each for each in psutil.process_iter(["cmdline"]) if job in (each.info["cmdline"] or [""])[-1]]


def test_a_file_becomes_a_served_soft_prompt(http, studio):
    digest = next(
        each["digest"] for each in http.get("/studio/v1/models").json()["models"] if each["name"] == studio.model
    )
    dataset = uploaded(http)
    job = created(http, plan(studio, dataset))
    first = told(http, job, until=5)
    events = first + told(http, job, after=first[-1]["sequence"])
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    states = [event["state"] for event in events if event["type"] == "state"]
    assert states == ["queued", "preparing", "running", "succeeded"]
    info = http.get(f"{JOBS}/{job}").json()
    assert (info["soft_prompt"], info["step"], info["total_steps"]) == (f"{dataset}@1", 12, 12)
    metrics = http.get(f"{JOBS}/{job}/metrics", params={"kind": "step"}).json()["data"]
    assert [each["step"] for each in metrics] == list(range(1, 13))
    assert info["result"]["weights_digest"] == digest

    kept = http.get(f"/studio/v1/soft-prompts/{dataset}@1").json()
    assert kept["origin"]["job_id"] == job
    assert kept["origin"]["dataset"] == f"{dataset}@1"
    assert kept["origin"]["result"] == info["result"]
    parts = assign(len(ROWS), Shares(**SHARES), 5, labels=[label for _, label in ROWS])
    test = [row for row, part in zip(ROWS, parts, strict=True) if part == "test"]
    labels = list(TEMPLATE["verbalizers"])
    right = {}
    for model, prompt_of in (
        (dataset, lambda text: {"text": text}),
        (f"{dataset}@1", lambda text: {"text": text}),
        (studio.model, lambda text: f"{text} 평가:"),
    ):
        scores = []
        for text, _ in test:
            body = {"model": model, "prompt": prompt_of(text), "continuations": list(TEMPLATE["verbalizers"].values())}
            answer = http.post("/studio/v1/score", json=body)
            assert answer.status_code == 200, answer.text
            scores.append([each["logprob"] for each in answer.json()["scores"]])
        given = [labels[values.index(max(values))] for values in scores]
        right[model] = sum(one == label for one, (_, label) in zip(given, test, strict=True)) / len(test)
        right[f"{model} scores"] = scores
    assert right[dataset] == right[f"{dataset}@1"] == info["result"]["tuned"]["accuracy"]
    assert right[studio.model] == info["result"]["zero_shot"]["accuracy"]
    assert right[f"{dataset} scores"] != right[f"{studio.model} scores"]
    again = http.post(f"{JOBS}/{job}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


def test_no_job_starts_from_a_bad_dataset_or_for_nobody(http, studio):
    dataset = uploaded(http, [(text, "1") for text, _ in ROWS])
    before = http.get(JOBS).json()["data"]
    answer = http.post(JOBS, json=plan(studio, dataset))
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["details"]["param"]) == (400, "invalid_request", "dataset")
    assert [each["kind"] for each in problem["details"]["findings"]] == ["one_label"]
    for change, status in (
        ({"dataset": "nothing"}, 404),
        ({"model": "nothing"}, 404),
        ({"name": studio.model}, 409),
        ({"columns": {"text": "review"}}, 400),
        ({"hyperparameters": {"slots": [600, 600]}}, 400),
    ):
        answer = http.post(JOBS, json=plan(studio, dataset) | change)
        assert answer.status_code == status, (change, answer.text)
    assert http.get(JOBS).json()["data"] == before
    assert http.get(f"{JOBS}/job_nothing/events").status_code == 404


def test_a_cancelled_job_leaves_nothing(http, studio, process):
    dataset = uploaded(http)
    job = created(http, plan(studio, dataset, hyperparameters=FAST | {"epochs": 1000, "patience": None}))
    behind = created(http, plan(studio, dataset))
    assert http.get(f"{JOBS}/{behind}").json()["queue"]["position"] >= 1
    assert http.post(f"{JOBS}/{behind}/cancel").json()["state"] == "cancelled"
    wait_until(http, job, lambda info: info["step"] > 0)
    assert http.post(f"{JOBS}/{job}/cancel").json()["is_cancel_wanted"]
    states = [event["state"] for event in told(http, job) if event["type"] == "state"]
    assert states[-1] == "cancelled"
    assert http.get(f"/studio/v1/soft-prompts/{dataset}").status_code == 404
    if process is not None:
        assert not trainers(job)


@pytest.mark.skipif(
    "E2E_URL" in os.environ, reason="the processes of a studio that runs elsewhere are not ours to kill"
)
@pytest.mark.parametrize("process", ["process-per-service"], indirect=True)
def test_a_job_that_is_killed_again_and_again_ends_like_one_that_was_not(http, studio, process):
    dataset = uploaded(http)
    long = FAST | {"epochs": 24, "batch_size": 4, "patience": None}
    body = plan(studio, dataset, hyperparameters=long)
    undisturbed = wait_until(http, created(http, body), ended)
    job = created(http, body)
    seed = time.time_ns()
    rng = random.Random(seed)  # noqa: S311  # moments, not secrets
    marks = sorted(rng.sample(range(10, 180), 5))
    kills = rng.sample(["trainer", "trainer", "trainer", "service", "both"], 5)
    for mark, kill in zip(marks, kills, strict=True):
        wait_until(
            http, job, lambda info, mark=mark: info["step"] >= mark and info["state"] == "running" and trainers(job)
        )
        if kill != "service":
            for trainer in trainers(job):
                trainer.kill()
        if kill != "trainer":
            process.kill_one("tuning")
            process.start_one("tuning")
    disturbed = wait_until(http, job, ended)
    assert disturbed["state"] == undisturbed["state"] == "succeeded", (disturbed["error"], seed)
    assert disturbed["attempt"] > undisturbed["attempt"]
    assert disturbed["result"] == undisturbed["result"], (kills, marks)
    steps = [read(http, each["id"]) for each in (undisturbed, disturbed)]
    assert steps[0] == steps[1], (kills, marks)
    assert [step for step, kind, _ in steps[1] if kind == "step"] == list(range(1, undisturbed["total_steps"] + 1))
    numbers = [event["sequence"] for event in told(http, job)]
    assert all(one == other for one, other in zip(numbers, count(1), strict=False))


def read(http: httpx.Client, job: str) -> list[tuple[int, str, float]]:
    """Step, kind and loss of everything that it measured, by step: a kill may tell an evaluation before its step."""
    answer = http.get(f"{JOBS}/{job}/metrics", params={"limit": 10_000}).json()
    assert not answer["has_more"]
    return sorted((each["step"], each["kind"], each["loss"]) for each in answer["data"])

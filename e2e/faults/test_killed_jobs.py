"""Tuning jobs whose trainer, service or both are killed, again and again: they end like one that was not."""

import os
import random
import time
from itertools import count

import httpx
import pytest
from tuning_jobs import FAST, JOBS, created, ended, plan, told, trainers, uploaded, wait_until
from ways import PROCESS_PER_SERVICE


@pytest.mark.skipif(
    "E2E_URL" in os.environ, reason="the processes of a studio that runs elsewhere are not ours to kill"
)
@pytest.mark.parametrize("way", [PROCESS_PER_SERVICE.name], indirect=True)
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

"""Tuning jobs through the studio: from a file to a served soft prompt."""

from hunmin_contracts.datasets import Shares
from hunmin_tuning.datasets.splits import assign
from tuning_jobs import FAST, JOBS, ROWS, SHARES, TEMPLATE, created, plan, told, trainers, uploaded, wait_until


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

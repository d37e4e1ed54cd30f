"""Upload, tune and call by the official `openai` client, unmodified; and CLOVA's tuning API as a second door."""

import csv
import json
import secrets
import time
from collections.abc import Iterator

import openai
import pytest

CITIES = ("서울", "부산", "대구", "인천", "광주", "대전", "울산", "세종")
CHATS = [
    {
        "messages": [
            {"role": "system", "content": "한 낱말로 답하라."},
            {"role": "user", "content": f"{number}번째로 큰 도시는?"},
            {"role": "assistant", "content": CITIES[number % len(CITIES)]},
        ]
    }
    for number in range(40)
]
PAIRS = [{"prompt": f"{number}번째 도시: ", "completion": CITIES[number % len(CITIES)]} for number in range(30)]
ENDED = ("succeeded", "failed", "cancelled")
PATIENCE_S = 900  # on a busy machine the trainer takes minutes to import torch
TASKS = "/tuning/v2/tasks"

pytestmark = pytest.mark.timeout(2 * PATIENCE_S)


@pytest.fixture
def client(studio) -> Iterator[openai.OpenAI]:
    with studio.client() as made:
        yield made


def file_of(lines: list, name: str | None = None) -> tuple[str, bytes]:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    return name or f"e2e-{secrets.token_hex(6)}.jsonl", text.encode()


def wait_until(client: openai.OpenAI, job_id: str, *states: str):
    deadline = time.monotonic() + PATIENCE_S
    while (job := client.fine_tuning.jobs.retrieve(job_id)).status not in states:
        assert job.status not in ENDED, job
        assert time.monotonic() < deadline, job
        time.sleep(0.2)
    return job


def test_conversations_become_a_model_that_chats_and_completes(client, studio, tmp_path):
    path = tmp_path / f"Cities-{secrets.token_hex(6)}.jsonl"
    path.write_bytes(file_of(CHATS)[1])
    with path.open("rb") as opened:
        file = client.files.create(file=opened, purpose="fine-tune")
    assert (file.status, file.filename, file.bytes) == ("processed", path.name, path.stat().st_size)
    assert file.id in [each.id for each in client.files.list()]
    assert client.files.content(file.id).content == path.read_bytes()

    suffix = f"cities-{secrets.token_hex(4)}"
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 8}}}
    job = client.fine_tuning.jobs.create(
        model=studio.model, training_file=file.id, suffix=suffix, method=method, seed=3, metadata={"for": "e2e"}
    )
    job = wait_until(client, job.id, "succeeded")
    assert (job.fine_tuned_model, job.training_file, job.metadata) == (f"{suffix}@1", file.id, {"for": "e2e"})
    assert job.id in [each.id for each in client.fine_tuning.jobs.list(limit=5).data]
    assert job.fine_tuned_model in [model.id for model in client.models.list()]
    _has_told_its_way(client, job)

    turns = CHATS[1]["messages"][:2]
    rendered = f"{turns[0]['content']}\n질문: {turns[1]['content']}\n답변:"
    greedy = {"temperature": 0, "max_tokens": 12}
    said = client.chat.completions.create(model=job.fine_tuned_model, messages=turns, **greedy).choices[0]
    tuned = client.completions.create(model=job.fine_tuned_model, prompt=rendered, **greedy).choices[0]
    assert (said.message.content, said.finish_reason) == (tuned.text, tuned.finish_reason)
    taught = {"prompt": rendered, "continuations": [CHATS[1]["messages"][2]["content"]]}
    with studio.http() as http:
        base, after = (
            http.post("/studio/v1/score", json=taught | {"model": name}).json()["scores"][0]["logprob"]
            for name in (studio.model, job.fine_tuned_model)
        )
    assert after > base + 1

    assert client.files.delete(file.id).deleted
    again = client.completions.create(model=job.fine_tuned_model, prompt=rendered, **greedy).choices[0]
    assert again.text == tuned.text


def _has_told_its_way(client: openai.OpenAI, job) -> None:
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=3))
    steps = [event.data["step"] for event in events if event.type == "metrics" and "train_loss" in event.data]
    assert steps == [4, 3, 2, 1]
    assert "succeeded" in next(event.message for event in events if event.type == "message")
    (kept,) = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert (kept.fine_tuned_model_checkpoint, kept.step_number) == (job.fine_tuned_model, 4)
    results = list(csv.DictReader(client.files.content(job.result_files[0]).text.splitlines()))
    assert [row["step"] for row in results] == ["1", "2", "3", "4"]
    assert job.trained_tokens == sum(int(row["tokens"]) for row in results) > 32


def test_pairs_tune_and_a_job_is_cancelled(client, studio):
    file = client.files.create(file=file_of(PAIRS), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=studio.model, training_file=file.id, hyperparameters={"n_epochs": 1000, "batch_size": 2}
    )
    assert job.status in ("queued", "validating_files", "running")
    wait_until(client, job.id, "running")
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    deadline = time.monotonic() + PATIENCE_S
    while (job := client.fine_tuning.jobs.retrieve(job.id)).finished_at is None:
        assert time.monotonic() < deadline, job
        time.sleep(0.2)
    assert (job.status, job.fine_tuned_model, job.result_files) == ("cancelled", None, [])
    assert list(client.fine_tuning.jobs.checkpoints.list(job.id)) == []


def test_what_is_wrong_is_told_with_its_line_and_no_job_starts(client, studio):
    before = [job.id for job in client.fine_tuning.jobs.list(limit=100).data]
    bad = [
        ([*CHATS[:12], '{"messages": [', *CHATS[12:20]], "Line 13: "),
        ([*CHATS[:12], PAIRS[0], *CHATS[12:20]], "Line 13: "),
        ([*CHATS[:12], {"messages": CHATS[0]["messages"][:2]}], "Line 13: "),
        ([*PAIRS[:12], {"prompt": "답이 없다"}], "Line 13: "),
        ([*PAIRS[:12], {"prompt": "길다 " * 400, "completion": "끝"}], "Line 13: "),
        (CHATS[:3], "at least 10"),
        ([{"text": "가", "label": "나"}] * 20, "no prompt"),
    ]
    for lines, told in bad:
        file = client.files.create(file=file_of(lines), purpose="fine-tune")
        with pytest.raises(openai.BadRequestError) as refusal:
            client.fine_tuning.jobs.create(model=studio.model, training_file=file.id)
        assert (refusal.value.param, told in refusal.value.message) == ("training_file", True), refusal.value.message
    with pytest.raises(openai.BadRequestError, match="Line 1"):
        client.files.create(file=("bad.jsonl", b'{"prompt": "\xff"}\n'), purpose="fine-tune")
    good = client.files.create(file=file_of(CHATS), purpose="fine-tune")
    for asked, error in (
        ({"training_file": "file-" + "0" * 24}, openai.BadRequestError),
        ({"model": "gpt-4o-mini"}, openai.NotFoundError),
        ({"validation_file": good.id}, openai.BadRequestError),
    ):
        with pytest.raises(error) as refusal:
            client.fine_tuning.jobs.create(**{"model": studio.model, "training_file": good.id} | asked)
        assert refusal.value.param == next(iter(asked))
    assert [job.id for job in client.fine_tuning.jobs.list(limit=100).data] == before


def test_another_account_finds_neither_file_nor_job(client, studio, process):
    if process is None:
        pytest.skip("the operator's command for keys works where the studio's home is")
    file = client.files.create(file=file_of(PAIRS), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=studio.model, training_file=file.id, hyperparameters={"n_epochs": 1})
    client.fine_tuning.jobs.cancel(job.id)
    made = process.hunmin("keys", "create", "e2e", "--account", secrets.token_hex(6))
    with studio.client(made.split()[-1]) as other:
        jobs = other.fine_tuning.jobs
        for call, named in (
            (other.files.retrieve, file.id),
            (other.files.content, file.id),
            (other.files.delete, file.id),
            (jobs.retrieve, job.id),
            (jobs.cancel, job.id),
            (jobs.list_events, job.id),
        ):
            with pytest.raises(openai.NotFoundError):
                call(named)
        with pytest.raises(openai.BadRequestError) as refusal:
            jobs.create(model=studio.model, training_file=file.id)
        assert refusal.value.param == "training_file"
        assert (other.files.list().data, jobs.list().data) == ([], [])
    assert client.files.delete(file.id).deleted


def test_clova_s_tasks_are_the_same_jobs(client, studio):
    file = client.files.create(file=file_of(PAIRS), purpose="fine-tune")
    body = {
        "name": "도시 이름",
        "model": studio.model,
        "tuningType": "PEFT",
        "trainEpochs": "1",
        "trainingDatasetFilePath": file.id.replace("file-", "ds_"),
    }
    with studio.http() as http:
        answer = http.post(TASKS, json=body).json()
        assert answer["status"] == {"code": "20000", "message": "OK"}
        task = answer["result"]["id"]
        job = wait_until(client, task.replace("job_", "ftjob-"), "succeeded")
        told = http.get(f"{TASKS}/{task}").json()["result"]
        assert (told["name"], told["status"], told["tunedModel"]) == ("도시 이름", "SUCCEEDED", job.fine_tuned_model)
        assert task in [each["id"] for each in http.get(TASKS).json()["result"]["content"]]
        asked = {"prompt": PAIRS[0]["prompt"], "max_tokens": 4}
        assert client.completions.create(model=told["tunedModel"], **asked).usage.completion_tokens > 0
        by_task = {"text": PAIRS[0]["prompt"], "maxTokens": 4, "seed": 7}
        said = http.post(f"/testapp/v1/tasks/{task}/completions", json=by_task).json()["result"]
        by_name = http.post(f"/v1/completions/{told['tunedModel']}", json=by_task).json()["result"]
        assert said == by_name
        assert (
            said["inputLength"]
            > http.post(f"/v1/completions/{studio.model}", json=by_task).json()["result"]["inputLength"]
        )
        assert http.delete(f"{TASKS}/{task}").json() == {"status": {"code": "20000", "message": "OK"}}
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model=told["tunedModel"], **asked)
        wrong = http.post(TASKS, json=body | {"trainEpochs": 100})
        assert (wrong.status_code, wrong.json()["status"]["code"]) == (400, "40001")

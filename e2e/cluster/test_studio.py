"""What a studio has only in a cluster: jobs of several pods, events by Kafka, limits that several gateways keep."""

import secrets

import pytest
from cluster.kube import ClusterRecords, hunmin, items, new_key
from hunmin_contracts.events import USAGE
from tuning_jobs import FAST, created, ended, plan, uploaded, wait_until


@pytest.mark.timeout(600)
def test_a_job_of_two_pods_ends_in_a_prompt_that_answers(http, studio):
    dataset = uploaded(http)
    job = created(http, plan(studio, dataset, hyperparameters=FAST | {"epochs": 4}))
    wait_until(http, job, lambda info: info["step"] > 0)
    pods = items("pods", f"--selector=hunmin.dev/tuning-job={job}")
    types = sorted(pod["metadata"]["labels"]["training.kubeflow.org/replica-type"] for pod in pods)
    assert types == ["master", "worker"]
    assert [each["kind"] for each in items("pytorchjobs", f"--selector=hunmin.dev/tuning-job={job}")] == ["PyTorchJob"]
    assert wait_until(http, job, ended)["state"] == "succeeded"
    body = {"model": f"{dataset}@1", "prompt": {"text": "정말 재미있다"}, "continuations": [" 긍정", " 부정"]}
    answer = http.post("/studio/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    wait_until(http, job, lambda _: not items("pytorchjobs", f"--selector=hunmin.dev/tuning-job={job}"))


def test_what_was_computed_is_told_by_kafka(account, studio):
    with studio.client(account.key) as client:
        told = client.completions.create(model=studio.model, prompt="이 영화는", max_tokens=4)
    account.auditor.wait_until_settled(within_s=60)
    (event,) = account.auditor.told()
    assert event["data"]["prompt_tokens"] + event["data"]["completion_tokens"] == told.usage.total_tokens
    assert event["id"] in account.auditor.processed()
    assert ClusterRecords().messages(USAGE.name)


def test_two_gateways_keep_one_limit(studio):
    name = f"e2e-{secrets.token_hex(4)}"
    key = new_key(name)
    hunmin("quotas", "set", name, "requests_per_minute", "5")
    body = {"model": studio.model, "prompt": "이 영화는", "max_tokens": 2}
    answers = []
    with studio.http() as http:
        for _ in range(8):  # a connection of its own leads to either gateway
            headers = {"Authorization": f"Bearer {key}", "Connection": "close"}
            answers.append(http.post("/v1/completions", json=body, headers=headers))
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
    assert int(answers[-1].headers["retry-after"]) > 0
    assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"

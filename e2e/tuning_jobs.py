"""What the tests of tuning jobs have in common: a file, a job, and what it tells, over HTTP."""

import json
import secrets
import time

import httpx
import psutil

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

"""Many at once: each gets its own, who leaves is forgotten, and every token is counted."""

import json
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

PROMPTS = [
    *("이 영화는", "배우들의 연기가", "처음부터 끝까지", "음악이"),
    *("감독의", "가족과 함께", "10점 만점에", "솔직히 말해서"),
]
FREED_WITHIN_S = 1.0


def test_eight_greedy_streams_each_get_what_they_get_alone(studio):
    def streamed(prompt: str) -> str:
        asked = {"model": studio.model, "prompt": prompt, "temperature": 0, "max_tokens": 48}
        with studio.client() as client:
            barrier.wait()
            return "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True))

    barrier = threading.Barrier(1)
    alone = [streamed(prompt) for prompt in PROMPTS]
    barrier = threading.Barrier(len(PROMPTS))
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        together = list(pool.map(streamed, PROMPTS))
    assert together == alone
    assert len(set(alone)) > 1


def test_a_killed_client_frees_its_sequences_within_a_second(studio):
    body = {"model": studio.model, "prompt": PROMPTS[0], "n": 16, "max_tokens": 200, "temperature": 2, "stream": True}
    curl = subprocess.Popen(
        [
            *("curl", "--silent", "--no-buffer", f"{studio.url}/v1/completions"),
            *("-H", f"Authorization: Bearer {studio.key}", "-H", "Content-Type: application/json"),
            *("-d", json.dumps(body)),
        ],
        stdout=subprocess.PIPE,
    )
    with curl, studio.http() as http:
        chunk = json.loads(curl.stdout.readline().removeprefix(b"data: "))
        curl.kill()
        killed = time.monotonic()
        request_id = chunk["id"].removeprefix("cmpl-")
        while not (rows := _rows_of(http, request_id)):
            assert time.monotonic() < killed + FREED_WITHIN_S, "no row of usage 1 s after the client was killed"
            time.sleep(0.02)
        if studio.generation_metrics_url is not None:
            while _running_sequences(studio.generation_metrics_url):
                assert time.monotonic() < killed + FREED_WITHIN_S, "a sequence runs 1 s after its client was killed"
                time.sleep(0.02)
    (row,) = rows
    assert row["status"] == "cancelled"
    assert row["prompt_tokens"] > 0
    assert 0 < row["completion_tokens"] < 16 * 200


def test_usage_is_exact_for_every_way_to_end(studio):
    with studio.client() as client, studio.http() as http:
        whole = client.completions.create(model=studio.model, prompt=PROMPTS[:2], n=2, max_tokens=7)
        *_, last = client.chat.completions.create(
            model=studio.model,
            messages=[{"role": "user", "content": "안녕"}],
            max_tokens=7,
            stream=True,
            stream_options={"include_usage": True},
        )
        refused = http.post("/v1/completions", json={"model": "gpt-4", "prompt": "가"})
        rows = {answer: _rows_of(http, answer.partition("-")[2]) for answer in (whole.id, last.id)}
        failed = _rows_of(http, refused.headers["x-request-id"].removeprefix("req_"))
    for answer in (whole, last):
        (row,) = rows[answer.id]
        counted = (row["prompt_tokens"], row["completion_tokens"], row["status"])
        assert counted == (answer.usage.prompt_tokens, answer.usage.completion_tokens, "succeeded")
    (row,) = failed
    counted = (row["prompt_tokens"], row["completion_tokens"], row["status"], row["error_code"])
    assert counted == (0, 0, "failed", "model_not_found")


def _rows_of(http: httpx.Client, request_id: str) -> list[dict]:
    rows = http.get("/studio/v1/usage", params={"limit": "50"}).json()["data"]
    return [row for row in rows if row["request_id"].removeprefix("req_") == request_id]


def _running_sequences(metrics_url: str) -> float:
    for line in httpx.get(metrics_url).text.splitlines():
        if line.startswith("vllm:num_requests_running"):
            return float(line.split()[-1])
    raise AssertionError("the generation service has no gauge of running sequences")

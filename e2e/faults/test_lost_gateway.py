"""A gateway that is killed in the middle of an answer: another settles what was generated until then."""

import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from studio_process import StudioProcess, model_environ, new_key, studio_process

WITHIN_S = 60


@pytest.mark.skipif(
    "E2E_URL" in os.environ, reason="the processes of a studio that runs elsewhere are not ours to kill"
)
def test_what_a_killed_gateway_had_asked_for_is_settled_by_another(model_folder: Path, tmp_path: Path) -> None:
    patience = {"HUNMIN_GATEWAY_LOST_AFTER_S": "16", "HUNMIN_STREAM_DEADLINE_S": "15"}
    environ = model_environ(model_folder) | patience
    process = StudioProcess(tmp_path / "home", new_key(), one_process=False, environ=environ)
    with (
        studio_process(process),
        httpx.Client(base_url=process.url, headers={"Authorization": f"Bearer {process.key}"}, timeout=30) as http,
    ):
        # So many that one is still running when the gateway is killed: a single one may end after a few tokens.
        body = {"model": process.model, "prompt": "이 영화는", "max_tokens": 150, "n": 16, "stream": True}
        seen = 0
        with suppress(httpx.TransportError), http.stream("POST", "/v1/completions", json=body) as response:
            for line in response.iter_lines():
                seen += line.startswith("data: ") and bool(json.loads(line[6:])["choices"][0]["text"])
                if seen == 5:
                    process.kill_one("gateway")
        assert seen >= 5
        process.start_one("gateway")
        deadline = time.monotonic() + WITHIN_S
        while not (rows := http.get("/studio/v1/usage").json()["data"]):
            assert time.monotonic() < deadline, process.tail()
            time.sleep(0.2)
        (row,) = rows
        assert (row["status"], row["endpoint"], row["error_code"]) == ("cancelled", "/v1/completions", None)
        assert row["prompt_tokens"] > 0
        metrics = httpx.get(f"http://127.0.0.1:{process.ports['generation']}/metrics").text
        generated = float(re.search(r"^vllm:generation_tokens_total\S* (\S+)$", metrics, re.MULTILINE)[1])
        assert seen <= row["completion_tokens"] <= generated

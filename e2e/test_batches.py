"""A batch by the official `openai` client, unmodified: an event starts it, and its files lie where blobs do."""

import json
import time

import pytest

PATIENCE_S = 120
pytestmark = pytest.mark.timeout(2 * PATIENCE_S)


def lines(studio, count: int) -> bytes:
    """Return the file of a batch, of which the last line is refused."""
    asked = {"prompt": "이 영화는", "max_tokens": 4, "temperature": 0}
    bodies = [{"model": studio.model} | asked] * count + [{"model": "nothing"} | asked]
    return "\n".join(
        json.dumps({"custom_id": f"line-{number}", "method": "POST", "url": "/v1/completions", "body": body})
        for number, body in enumerate(bodies)
    ).encode()


def test_a_batch_completes_and_its_lines_are_told_and_metered(studio):
    with studio.client() as client:
        file = client.files.create(file=("lines.jsonl", lines(studio, 5)), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/completions", completion_window="24h", metadata={"kind": "e2e"}
        )
        deadline = time.monotonic() + PATIENCE_S
        while (batch := client.batches.retrieve(batch.id)).status not in ("completed", "failed", "expired"):
            assert time.monotonic() < deadline, batch
            time.sleep(0.2)
        assert (batch.status, batch.errors) == ("completed", None)
        counts = batch.request_counts
        assert (counts.total, counts.completed, counts.failed) == (6, 5, 1)
        told = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
        refused = [json.loads(line) for line in client.files.content(batch.error_file_id).text.splitlines()]
    assert {line["custom_id"] for line in told} == {f"line-{number}" for number in range(5)}
    texts = {line["response"]["body"]["choices"][0]["text"] for line in told}
    assert len(texts) == 1  # greedy
    assert [line["custom_id"] for line in refused] == ["line-5"]
    rows = [row for row in studio.usage() if row["batch_id"] == batch.id and row["status"] == "succeeded"]
    used = sum(line["response"]["body"]["usage"]["total_tokens"] for line in told)
    assert sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows) == used

"""One trace leads from a caller through every service and the bus to the row of the ledger.

The caller asks twice in it, to count and to complete: generation has a tokenizer of its own (ADR 1).
"""

import secrets
import time

import pytest

PATIENCE_S = 60
TOPIC = "hunmin.generation.usage.v1"
# What each service does for the request: who asks, who is asked, who tells of it, who hears of it.
STEPS = {
    ("hunmin-gateway", "POST /v1/api-tools/chat-tokenize/{model}"),
    ("hunmin-tokenizer", "POST /v1/count"),
    ("hunmin-gateway", "POST /v1/completions"),
    ("hunmin-generation", "POST /v1/generate"),
    ("hunmin-generation", f"send {TOPIC}"),
    ("hunmin-gateway", f"process {TOPIC}"),
}


def test_one_trace_leads_from_the_request_to_the_ledger(studio, process, collector):
    if process is None:
        pytest.skip("a studio that runs elsewhere sends its spans elsewhere")
    trace_id, caller = secrets.token_hex(16), secrets.token_hex(8)
    headers = {"traceparent": f"00-{trace_id}-{caller}-01"}
    with studio.http() as http:
        chat = {"messages": [{"role": "user", "content": "이 영화는"}]}
        counted = http.post(f"/v1/api-tools/chat-tokenize/{studio.model}", json=chat, headers=headers)
        assert counted.json()["result"]["messages"][0]["count"] > 0, counted.text
        body = {"model": studio.model, "prompt": "이 영화는", "max_tokens": 4}
        request_id = http.post("/v1/completions", json=body, headers=headers).headers["x-request-id"]
    wait_for_the_whole(collector, trace_id, caller)
    (row,) = [row for row in studio.usage() if row["request_id"] == request_id]
    assert row["trace_id"] == trace_id


def wait_for_the_whole(collector, trace_id, caller):
    """Wait until every step has been told of, in one tree of which the caller is the root."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        spans = collector.spans(trace_id)
        found, known = {(span.service, span.name) for span in spans}, {span.id for span in spans} | {caller}
        orphans = [span for span in spans if span.parent_id not in known]
        if found >= STEPS and not orphans:
            return
        time.sleep(0.2)
    pytest.fail(f"not told of: {STEPS - found}; without a parent: {orphans}; told of: {found}")

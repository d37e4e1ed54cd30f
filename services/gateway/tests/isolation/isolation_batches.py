"""The operations of batches, and of the files that batches read and write. Both are in a project."""

from isolation_probes import REFUSED, Reach, Run, Show, Table
from isolation_runs import in_own_line, over_own_table
from isolation_things import MODEL, make_batch, make_dataset, make_requests, make_soft_prompt

_BATCH = [Reach(make_batch, "id")]
_ENDED = [Reach(make_batch, "id", own=409)]  # there is nothing left to cancel; whoever does not own it is told 404
_FILE = [Reach(make_batch, "output"), Reach(make_requests, "file")]
_PLAN = {"input_file_id": "{id}", "endpoint": "/v1/completions", "completion_window": "24h"}
_FORM = {"dataset": "{id}", "template": "{prompt}", "model": MODEL, "parameters": '{"max_tokens": 1}'}

TABLE: Table = {
    "POST /v1/batches": [
        Reach(make_requests, "file", body=_PLAN, expected=REFUSED),
        Run(make_soft_prompt, "reference", in_own_line, fills="body input_file_id"),
    ],
    "GET /v1/batches": [
        Show(make_batch, ("id", "input", "output")),
        Reach(make_batch, "id", params={"after": "{id}"}, expected=REFUSED),
    ],
    "GET /v1/batches/{batch_id}": [*_BATCH],
    "POST /v1/batches/{batch_id}/cancel": [*_ENDED],
    "POST /studio/v1/batches": [
        Reach(make_dataset, "reference", form=_FORM),
        Run(make_soft_prompt, "reference", over_own_table, fills="form model"),
    ],
    "GET /studio/v1/batches": [
        Show(make_batch, ("id", "input", "output")),
        Reach(make_batch, "id", params={"cursor": "{id}"}, expected=REFUSED),
    ],
    "GET /studio/v1/batches/{batch_id}": [*_BATCH],
    "POST /studio/v1/batches/{batch_id}/cancel": [*_ENDED],
    "GET /studio/v1/batches/{batch_id}/results.csv": [*_BATCH],
    "GET /studio/v1/batches/{batch_id}/events": [*_BATCH],
    "GET /v1/files": [
        Show(make_batch, ("input", "output")),
        Reach(make_batch, "output", params={"after": "{id}"}, expected=REFUSED),
    ],
    "GET /v1/files/{file_id}": [*_FILE],
    "GET /v1/files/{file_id}/content": [*_FILE],
    "DELETE /v1/files/{file_id}": [*_FILE],
}

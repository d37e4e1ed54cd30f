"""Every operation of the gateway: by which ids it reaches what an account owns, or why it reaches nothing of any.

A new operation fails the test until it stands here. One that takes an id in several places stands here once for each.
"""

import json
from typing import Any

import isolation_batches
import isolation_clova
import isolation_tenancy
from isolation_probes import REFUSED, Beside, Probe, Reach, Run, Show, Table
from isolation_runs import over_own_dataset
from isolation_things import (
    MODEL,
    ROWS,
    TEMPLATE,
    find_limit,
    find_task,
    make_call,
    make_dataset,
    make_job,
    make_soft_prompt,
    soft_prompt_file,
)

GREEDY = {"max_tokens": 1}


def _model(**rest: Any) -> Reach:
    return Reach(make_soft_prompt, "reference", body={"model": "{id}"} | rest)


def _adapter(**rest: Any) -> Reach:
    return Reach(
        make_soft_prompt,
        "reference",
        body={"inputs": "이 영화는", "parameters": {"adapter_id": "{id}", "max_new_tokens": 1}},
        **rest,
    )


def _base(path: str, body: dict[str, Any]) -> Run:
    """Try a soft prompt where a base model is asked for: there is none of that name, whoever asks."""
    return Run(make_soft_prompt, "reference", over_own_dataset(path, body), fills="body model", own=404)


def _url_model() -> Reach:
    body = {"inputs": "이 영화는", "parameters": {"max_new_tokens": 1}}
    return Reach(make_soft_prompt, "reference", body=body)


_OF_BASE = _adapter(path={"name": MODEL})
_DATASET = [Reach(make_dataset, kind) for kind in ("id", "reference", "name")]
_SOFT_PROMPT = [Reach(make_soft_prompt, kind) for kind in ("reference", "name")]
_FILE = [Reach(make_dataset, "file")]
_RESULTS = [Reach(find_task, "results")]
_JOB = [Reach(make_job, "id")]
_FTJOB = [Reach(make_job, "ftjob")]
_JOB_PLAN = {"name": "stolen", "model": MODEL, "dataset": "{id}", "template": TEMPLATE}
_CHAT = [{"role": "user", "content": "안녕"}]
_OWN_DATASET = "/studio/v1/datasets/{name}"
_QUESTION = {"template": TEMPLATE, "model": MODEL}
_GRADIENTS = {"model": "{id}", "examples": [{"target": "좋다", "fields": {"prompt": "이 영화는"}}]}
_PREVIEW = _QUESTION | {"dataset": "{id}"}

_OWN: Table = {
    "POST /v1/completions": [_model(prompt="이 영화는", **GREEDY), _model(prompt="이", stream=True, **GREEDY)],
    "POST /v1/chat/completions": [_model(messages=_CHAT, **GREEDY), _model(messages=_CHAT, stream=True, **GREEDY)],
    "POST /v1/embeddings": [_model(input="이 영화는")],
    "GET /v1/models": [Show(make_soft_prompt, ("reference",))],
    "GET /v1/models/{name}": _SOFT_PROMPT,
    "POST /v1/files": [Beside(make_dataset, _OWN_DATASET, {"purpose": "fine-tune"}, "{name}.jsonl", ROWS.encode())],
    "GET /v1/files": [
        Show(make_dataset, ("file",)),
        Reach(make_dataset, "file", params={"after": "{id}"}, expected=REFUSED),
    ],
    "GET /v1/files/{file_id}": _FILE + _RESULTS,
    "DELETE /v1/files/{file_id}": [*_FILE, Reach(find_task, "results", expected=REFUSED, own=400)],
    "GET /v1/files/{file_id}/content": _FILE + _RESULTS,
    "POST /v1/fine_tuning/jobs": [
        Reach(make_dataset, "file", body={"model": MODEL, "training_file": "{id}"}, expected=REFUSED),
        _base("/v1/fine_tuning/jobs", {"model": "{id}", "training_file": "{file}"}),
    ],
    "GET /v1/fine_tuning/jobs": [
        Show(make_job, ("ftjob",)),
        Reach(make_job, "ftjob", params={"after": "{id}"}, expected=REFUSED),
    ],
    "GET /v1/fine_tuning/jobs/{job_id}": _FTJOB,
    "POST /v1/fine_tuning/jobs/{job_id}/cancel": _FTJOB,
    "POST /v1/fine_tuning/jobs/{job_id}/resume": [Reach(make_job, "ftjob", own=400)],
    "POST /v1/fine_tuning/jobs/{job_id}/pause": [Reach(make_job, "ftjob", own=400)],
    "GET /v1/fine_tuning/jobs/{job_id}/events": _FTJOB,
    "GET /v1/fine_tuning/jobs/{job_id}/checkpoints": _FTJOB,
    "GET /tuning/v2/tasks": [Show(make_job, ("id",))],
    "GET /studio/v1/usage": [Show(make_call, ("request", "key"))],
    "GET /studio/v1/usage/summary": [Show(make_call, ("key",))],
    "GET /studio/v1/usage.csv": [Show(make_call, ("request", "key"))],
    "GET /studio/v1/quotas": [Show(find_limit, ("value",))],
    "POST /studio/v1/gradients": [
        Reach(make_soft_prompt, "reference", body=_GRADIENTS),
        Reach(
            make_soft_prompt,
            "reference",
            form={"request": json.dumps(_GRADIENTS)},
            upload=("soft_prompt", "own.safetensors", soft_prompt_file()),
        ),
    ],
    "POST /studio/v1/score": [_model(prompt="이 영화는", continuations=["좋다"])],
    "POST /studio/v1/soft-prompts": [
        Beside(
            make_soft_prompt,
            "/studio/v1/soft-prompts/{name}",
            {"name": "{name}", "model": MODEL},
            "prompt.safetensors",
            soft_prompt_file(),
        ),
        Reach(
            make_soft_prompt,
            "reference",
            form={"name": "own", "model": "{id}"},
            upload=("file", "own.safetensors", soft_prompt_file()),
            own=404,  # it is of a base model
        ),
    ],
    "GET /studio/v1/soft-prompts": [
        Show(make_soft_prompt, ("name", "id"), {"name": "{name}"}),
        Reach(make_soft_prompt, "id", params={"cursor": "{id}"}, expected=REFUSED),
    ],
    "GET /studio/v1/soft-prompts/{reference}": _SOFT_PROMPT,
    "DELETE /studio/v1/soft-prompts/{reference}": _SOFT_PROMPT,
    "GET /studio/v1/soft-prompts/{reference}/file": _SOFT_PROMPT,
    "GET /studio/v1/soft-prompts/{reference}/peft": _SOFT_PROMPT,
    "POST /studio/v1/soft-prompts/{reference}/promote": [Reach(make_soft_prompt, "reference")],
    "POST /studio/v1/soft-prompts/compare": [Reach(make_soft_prompt, "reference", body={"references": ["{id}"] * 2})],
    "POST /studio/v1/datasets": [Beside(make_dataset, _OWN_DATASET, {"name": "{name}"}, "rows.jsonl", ROWS.encode())],
    "GET /studio/v1/datasets": [
        Show(make_dataset, ("id", "name")),
        Show(make_dataset, ("id",), {"name": "{name}"}),
        Reach(make_dataset, "id", params={"cursor": "{id}"}, expected=REFUSED),
    ],
    "GET /studio/v1/datasets/{reference}": _DATASET,
    "DELETE /studio/v1/datasets/{reference}": _DATASET,
    "POST /studio/v1/datasets/{reference}/report": [
        *(Reach(make_dataset, kind, body=_QUESTION) for kind in ("id", "reference", "name")),
        _base("/studio/v1/datasets/{dataset}/report", _QUESTION | {"model": "{id}"}),
    ],
    "GET /studio/v1/datasets/{reference}/rows": _DATASET,
    "POST /studio/v1/tuning/jobs": [
        *(Reach(make_dataset, kind, body=_JOB_PLAN) for kind in ("id", "reference", "name")),
        _base("/studio/v1/tuning/jobs", _JOB_PLAN | {"model": "{id}", "dataset": "{dataset}"}),
    ],
    "GET /studio/v1/tuning/jobs": [
        Show(make_job, ("id",)),
        Reach(make_job, "id", params={"cursor": "{id}"}, expected=REFUSED),
    ],
    "GET /studio/v1/tuning/jobs/{job_id}": _JOB,
    "POST /studio/v1/tuning/jobs/{job_id}/cancel": _JOB,
    "GET /studio/v1/tuning/jobs/{job_id}/metrics": _JOB,
    "GET /studio/v1/tuning/jobs/{job_id}/events": _JOB,
    "POST /studio/v1/tuning/preview": [
        *(Reach(make_dataset, kind, body=_PREVIEW) for kind in ("id", "reference", "name")),
        _base("/studio/v1/tuning/preview", _PREVIEW | {"model": "{id}", "dataset": "{dataset}"}),
    ],
    "POST /generate": [_adapter()],
    "POST /generate_stream": [_adapter()],
    "POST /": [_adapter()],
    "POST /models/{name}/generate": [_url_model(), _OF_BASE],
    "POST /models/{name}/generate_stream": [_url_model(), _OF_BASE],
    "POST /models/{name}": [_url_model(), _OF_BASE],
}

# Operations stand in several of them if they reach several things.
TABLES = (_OWN, isolation_clova.TABLE, isolation_batches.TABLE, isolation_tenancy.TABLE)
TABLE: dict[str, list[Probe]] = {}
for _table in TABLES:
    for _operation, _probes in _table.items():
        TABLE.setdefault(_operation, []).extend(_probes)

_LOGIN = "takes no id: whom it is about is told by the cookie, or by what the browser was given"

# Operations that take no id of anything an account owns, and list nothing of any.
OF_NOBODY: dict[str, str] = {
    "GET /studio/v1/models": "the base models are everyone's",
    "GET /studio/v1/tokenizers": "the tokenizers are everyone's",
    **{
        f"POST /studio/v1/tokenizers/{{name}}/{verb}": "the tokenizers are everyone's, and nothing is kept"
        for verb in ("encode", "decode", "count", "morphemes")
    },
    "GET /studio/v1/products": "the products ship with the server",
    "GET /studio/v1/products/{name}": "the products ship with the server",
    "GET /studio/v1/products/{name}/sample": "the products ship with the server",
    "GET /health": "tells of a base model alone, and needs no key",
    "GET /models/{name}/health": "knows base models alone, and needs no key",
    "GET /info": "tells of a base model alone",
    "GET /models/{name}/info": "knows base models alone",
    "GET /": "the same for everyone, and needs no key",
    "GET /auth/login": _LOGIN,
    "GET /auth/callback": _LOGIN,
    "GET /auth/password": _LOGIN,
    "POST /auth/password": _LOGIN,
    "POST /auth/password/change": _LOGIN,
    "GET /auth/session": _LOGIN,
    "POST /auth/logout": _LOGIN,
    "POST /auth/backchannel-logout": "ends the sessions that a token which the identity provider signed names",
}

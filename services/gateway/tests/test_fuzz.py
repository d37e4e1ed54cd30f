"""Every answer of the gateway is what its OpenAPI file says, whatever is asked, by whoever has a key."""

import json
from pathlib import Path

import httpx
import pytest
import torch
from hunmin_contracts.tenancy import KeyKind, Role
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.operations import OWN
from hunmin_gateway.parts import parts_of_app
from hunmin_gateway.service import SERVICE
from hunmin_generation.service import SERVICE as GENERATION
from hunmin_kit.testing import running
from hunmin_kit.testing.fuzzing import FuzzPlan, fuzz
from hunmin_modeling.testing import save_tiny_checkpoint
from hunmin_text.training import Method, train
from hunmin_tokenizer.service import SERVICE as TOKENIZER
from hunmin_tuning.service import SERVICE as TUNING
from safetensors.torch import save

TEMPLATE = {"prompt": "<|VIRTUAL_PROMPT_0|>{prompt}", "answer": "{completion}"}
ROWS = "".join(f'{{"prompt": "{number}번째 영화는 ", "completion": "{number % 2}"}}\n' for number in range(80))
OF_TEMPLATES = [f'"param":"{name}"' for name in ("prompt", "answer", "columns", "verbalizers", "truncated", "examples")]
LENGTHS = ("max_tokens", "max_completion_tokens", "max_new_tokens", "maxTokens", "maxCompletionTokens")
FILE = {"positive_data_acceptance": "no schema says what a file holds"}
PAGE = "where a page ended is known to whoever has read it"
TWO = "no schema compares two fields"
SLASH = dict.fromkeys(
    ("unsupported_method", "allow_header_conformance"),
    "a model's name may have a slash, so that other methods are of a model so called",
)
NOT_OFFERED = {"positive_data_acceptance": "OpenAI's clients know the route, and are told what to do instead"}
SAME = [name for name in OWN if name.startswith(("POST /testapp/", "POST /serviceapp/"))]
NO_TOKEN = {"positive_data_acceptance": "takes a token that an identity provider signed, and there is none here"}
REFUSALS = {
    "The Idempotency-Key came with another request": "which keys came before is known to whoever sent them",
    "holds no text": "CLOVA Studio has a code of its own for it, where a schema would give the general one",
    '"40004"': "the same",
    "Send one of email and user_id": "the rule stands in the description of the body",
    "that the page before ended with is gone": PAGE,
    "No page of the account's jobs ended with": PAGE,
    "Send next_cursor of the page before": PAGE,
    "Send the last id of the page before": PAGE,
    "The prompt lacks": "which fields there are depends on the soft prompt's template",
    "has no template with fields to fill": "the same",
    "The prompt is empty": "it may be in several shapes, and that of a soft prompt's template may be empty",
    "context_length_exceeded": "how many tokens a text has depends on the tokenizer",
    "prompt_too_long": "the same",
    "is not in the model's vocabulary": "the same",
    "is not in the vocabulary": "the same",
    "cannot be stored": "U+0000 is a character of JSON, and none that a database takes",
    "not supported here": "OpenAI's clients know the parameter, and are told what to do instead",
    "a chat has one message of the system at most": "no schema counts the roles in a list",
    ".text is missing. Add it": "a part of a message may be in several shapes",
    "There is no file": "which files there are depends on the account",
    "there is no file": "the same",
    "There is no model": "CLOVA Studio says 40080 where others say 404",
    "does not say which version": "to others of the same schema a name alone is enough",
    "The template ": "a template's text has a grammar of its own",
    "does not pass": "whether a dataset does is what its report is for",
    "name a dataset, or give rows": "the rule stands in the description of the body",
    "accumulation exceeds batch_size": TWO,
    "only allowed with": TWO,
    "must not be set when": TWO,
    "cannot be streamed": "what it is refused for depends on the path, whose body has one schema for all",
    "contradicts max_completion_tokens": TWO,
    "cannot be given beside": TWO,
    "more than 1 needs sampling": TWO,
    "running_jobs counts tuning jobs": TWO,
    "storage_bytes counts all that an account keeps": TWO,
    "is a soft prompt, which counts to its base model": "a schema of names does not tell models from soft prompts",
    "Send some letters": "a name is made of the letters that a text has",
    "the slots take": "no schema adds numbers up",
    **dict.fromkeys(OF_TEMPLATES, "a template's text has a grammar of its own, and has to fit its rows"),
}


def model_folder(folder: Path) -> Path:
    """A tiny model of byte-level tokens: answers cost nothing."""
    save_tiny_checkpoint(folder, "gpt2", vocab_size=290, context_length=400)
    train(Method.BYTE, ["영화는 정말 재미있었습니다"] * 9, vocab_size=290).backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder


async def things(http: httpx.AsyncClient) -> dict[str, list[str]]:
    """Make one of everything; return what it is called by the parameter that takes its name."""
    mood = {"file": ("mood.safetensors", save({"prompt_embeddings": torch.zeros(2, 32)}))}
    rows = {"file": ("rows.jsonl", ROWS.encode())}
    made = await http.post("/studio/v1/soft-prompts", data={"name": "mood", "model": "one"}, files=mood)
    assert made.status_code == 201, made.text
    dataset = await http.post("/studio/v1/datasets", data={"name": "rows"}, files=rows)
    assert dataset.status_code == 201, dataset.text
    plan = {"name": "tuned", "model": "one", "dataset": "rows@1", "template": TEMPLATE}
    job = await http.post("/studio/v1/tuning/jobs", json=plan)
    assert job.status_code == 201, job.text
    job_id, file_id = job.json()["id"], dataset.json()["id"].replace("ds_", "file-")
    return {
        **await places(http),
        "model": ["one", "mood@1"],
        "name": ["one", "mood@1", "sentiment"],
        "reference": ["mood@1", "rows@1"],
        "dataset": ["rows@1"],
        "trainingDatasetFilePath": ["rows@1"],
        "training_file": [file_id],
        "file_id": [file_id],
        "input_file_id": [await requests_file(http)],
        "job_id": [job_id, job_id.replace("job_", "ftjob-")],
        "task_id": [job_id],
    }


async def requests_file(http: httpx.AsyncClient) -> str:
    """Keep a file for batches; return its id."""
    line = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"model": "one", "prompt": "이"}}
    files = {"file": ("requests.jsonl", json.dumps(line).encode())}
    sent = await http.post("/v1/files", data={"purpose": "batch"}, files=files)
    assert sent.status_code == 200, sent.text
    return sent.json()["id"]


async def places(http: httpx.AsyncClient) -> dict[str, list[str]]:
    """Make an account, a project, a member and a key, none of them the caller's own; return what they are called."""

    async def made(path: str, **body: object) -> dict:
        sent = await http.post(f"/studio/v1{path}", json=body)
        assert sent.status_code == 201, sent.text
        return sent.json()

    account = await made("/operator/accounts", name="victim")
    limit = {"name": "requests_per_minute", "value": 1}
    sent = await http.put(f"/studio/v1/operator/accounts/{account['id']}/limits", json=limit)
    assert sent.status_code == 200, sent.text
    project = await made("/projects", name="victim")
    member = await made("/members", email="victim@example.com", role="viewer")
    key = await made("/keys", name="victim", scopes=["read"])
    return {
        "account_id": [account["id"]],
        "limit_id": [sent.json()["id"]],
        "project_id": [project["id"]],
        "project": [project["id"]],
        "member_id": [member["id"]],
        "key_id": [key["info"]["id"]],
    }


@pytest.mark.timeout(900)
async def test_answers_are_as_described(tmp_path: Path) -> None:
    models = json.dumps({"one": str(model_folder(tmp_path / "one"))})
    env = {
        "HUNMIN_GENERATION_MODELS": models,
        "HUNMIN_GENERATION_THREADS": "1",
        "HUNMIN_TUNING_MODELS": models,
        "HUNMIN_TUNING_SLOTS": "0",
        "HUNMIN_TOKENIZER_MODELS": models,
    }
    async with running(SERVICE, GENERATION, TOKENIZER, TUNING, env=env, network=True) as up:
        parts = parts_of_app(up.app("gateway"))
        async with parts.database.session() as session:
            key, _ = await KeyRing(session, pepper=parts.pepper).create(
                "fuzz", "fuzz", role=Role.OWNER, kind=KeyKind.OPERATOR
            )
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=up.url("gateway"), headers=headers, timeout=60) as http:
            known = await things(http)
            me = (await http.get("/studio/v1/me")).json()
        plan = FuzzPlan(
            known=known,
            spared=[me["account"]["id"], me["key_id"]],
            bounds={
                **dict.fromkeys(LENGTHS, 3),
                **dict.fromkeys(("n", "best_of"), 2),
                **dict.fromkeys(("after", "last-event-id"), 0),  # no event may ever come behind others
            },
            refusals=REFUSALS,
            untested=dict.fromkeys(SAME, "the function and the schema of the path without the prefix"),
            unchecked={
                "GET /models/{name}/health": SLASH,
                "GET /models/{name}/info": SLASH,
                "POST /studio/v1/soft-prompts/compare": {
                    "allow_header_conformance": "the path is also that of a soft prompt which is called compare"
                },
                "POST /auth/backchannel-logout": NO_TOKEN,
                "POST /v1/fine_tuning/jobs/{job_id}/pause": NOT_OFFERED,
                "POST /v1/fine_tuning/jobs/{job_id}/resume": NOT_OFFERED,
                "POST /studio/v1/batches": FILE,
                "POST /v1/files": FILE,
                "POST /studio/v1/datasets": FILE,
                "POST /studio/v1/soft-prompts": FILE,
                "POST /studio/v1/gradients": FILE,
            },
        )
        await fuzz(up.url("gateway"), plan, tmp_path, headers=headers)
        async with httpx.AsyncClient(base_url=up.url("gateway"), headers=headers) as http:
            assert (await http.get("/studio/v1/me")).is_success, "the key was lost on the way, and what came after it"

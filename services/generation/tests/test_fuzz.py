"""Every answer of the service is what its OpenAPI file says, whatever is asked."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from hunmin_contracts.soft_prompts import IMPORT, ImportRequest
from hunmin_generation.service import SERVICE
from hunmin_kit.testing import running
from hunmin_kit.testing.fuzzing import FuzzPlan, fuzz
from hunmin_modeling.testing import save_tiny_checkpoint
from hunmin_text.training import Method, train
from safetensors.torch import save

ACCOUNT = "acct_1"
NO_FILE = {"positive_data_acceptance": "no schema says what a file holds, and what is sent is no safetensors file"}
PLAN = FuzzPlan(
    known={"account_id": [ACCOUNT], "model": ["one", "mood@1"], "reference": ["mood@1", "mood"]},
    bounds={"max_tokens": 3, "n": 2},
    refusals={
        "cannot be stored": "U+0000 is a character of JSON, and none that a database takes",
        "prompt_too_long": "how many tokens a prompt has depends on the tokenizer",
        "is not in the model's vocabulary": "which ids there are depends on the tokenizer",
        "The prompt lacks": "which fields there are depends on the soft prompt's template",
        "has no template with fields to fill": "the same",
        "The prompt is empty": "it may be in several shapes, and that of a soft prompt's template may be empty",
        "that the page before ended with is gone": "where a page ended is known to whoever has read it",
        "does not say which version": "to others of the same schema a name alone is enough",
    },
    unchecked={
        "POST /v1/soft-prompts": NO_FILE,
        "POST /v1/gradients": NO_FILE,
        "POST /v1/measure/gradients": NO_FILE,
    },
)


@pytest.mark.timeout(600)
async def test_answers_are_as_described(tmp_path: Path) -> None:
    model = tmp_path / "one"
    save_tiny_checkpoint(model, "gpt2", vocab_size=290, context_length=400)
    train(Method.BYTE, ["영화는 정말 재미있었습니다"] * 9, vocab_size=290).backend.save(str(model / "tokenizer.json"))
    (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    env = {"HUNMIN_GENERATION_MODELS": json.dumps({"one": str(model)}), "HUNMIN_GENERATION_THREADS": "1"}
    async with running(SERVICE, env=env, network=True) as up:
        request = ImportRequest(account_id=ACCOUNT, name="mood", model="one")
        await up.client("generation").upload(IMPORT, request, _sent(save({"prompt_embeddings": torch.zeros(2, 32)})))
        await fuzz(up.url("generation"), PLAN, tmp_path)


async def _sent(file: bytes) -> AsyncIterator[bytes]:
    yield file

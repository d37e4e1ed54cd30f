"""A soft prompt served by the engine and the same adapter run by PEFT generate the same tokens."""

from pathlib import Path

import peft
import pytest
import torch
from hunmin_contracts.generation import Sampling
from hunmin_contracts.soft_prompts import Manifest
from hunmin_generation.engine.request import EngineRequest, Event
from hunmin_modeling.config import MODEL_TYPES
from hunmin_modeling.peft import write_adapter
from hunmin_modeling.soft_prompt import SoftPromptRows
from hunmin_modeling.testing import tiny_model

pytestmark = [
    # transformers' own renaming, which PEFT has not followed yet
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    # its generate hands them in; PEFT counts positions anew, from the first virtual token
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]

LENGTH = 12
PROMPTS = [[5, 17, 3, 42], [60, 2], [9] * 20]


@pytest.mark.parametrize("model_type", sorted(MODEL_TYPES))
def test_tokens_are_those_of_peft(model_type, new_engine, vocabulary, tmp_path: Path) -> None:
    engine = new_engine(model_type)
    sinks: list[list[Event]] = []
    expected: list[list[int]] = []
    for number in range(3):
        model = tiny_model(model_type)
        table = model.get_input_embeddings().weight
        rows = table.std().item() * torch.randn(6, table.shape[1], generator=torch.Generator().manual_seed(number))
        folder = tmp_path / str(number)
        write_adapter(folder, rows, Manifest(), base_model="tiny")
        adapted = peft.PeftModel.from_pretrained(model, folder)
        soft_prompt = SoftPromptRows(f"sp_{number}", rows)
        for prompt in PROMPTS:
            generated = adapted.generate(
                input_ids=torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=LENGTH,
                do_sample=False,
                use_cache=False,  # with it PEFT 0.21 on transformers 5 leaves its own forward pass after some tokens
                eos_token_id=None,
                pad_token_id=0,
            )
            expected.append(generated[0, -LENGTH:].tolist())
            sinks.append([])
            request = EngineRequest(
                [-1 - row for row in range(len(rows))] + prompt,
                sampling=Sampling(temperature=0),
                max_tokens=LENGTH,
                ignore_end=True,
                soft_prompt=soft_prompt,
            )
            engine.add(request, sinks[-1].append)
    while not engine.is_idle:
        engine.step()
    assert [vocabulary.ids("".join(e.text for e in sink if e.type == "chunk")) for sink in sinks] == expected

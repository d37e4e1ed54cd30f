"""The real PEFT reads what we write, and we read what it trained."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from hunmin_contracts.errors import HunminError
from hunmin_contracts.soft_prompts import Manifest
from hunmin_modeling.peft import read_adapter, write_adapter
from hunmin_modeling.soft_prompt import write_file
from hunmin_modeling.testing import tiny_model

# transformers' own renaming, which PEFT has not followed yet
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

IDS = torch.tensor([[5, 17, 3, 42]])
D_MODEL = 32
ROWS = torch.randn(4, D_MODEL, generator=torch.Generator().manual_seed(7))


def logits_behind(rows: torch.Tensor, model_type: str) -> torch.Tensor:
    """The base model's logits after `rows` and IDS, by hand."""
    model = tiny_model(model_type)
    embedded = torch.cat([rows, model.get_input_embeddings()(IDS[0])])
    with torch.inference_mode():
        return model(inputs_embeds=embedded[None]).logits[0, len(rows) :]


def trained(config: peft.PeftConfig, folder: Path) -> Any:
    """Train a few steps with PEFT, and save as PEFT does."""
    torch.manual_seed(1)
    model = peft.get_peft_model(tiny_model("gpt2"), config)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox", "llama", "hyperclovax"])
def test_peft_serves_an_adapter_of_ours(tmp_path: Path, model_type: str) -> None:
    write_adapter(tmp_path, ROWS, Manifest(template="<|VIRTUAL_PROMPT_0|>{a}"), base_model="starter")
    adapted = peft.PeftModel.from_pretrained(tiny_model(model_type), tmp_path)
    with torch.inference_mode():
        logits = adapted(input_ids=IDS).logits[0]
        base = tiny_model(model_type)(input_ids=IDS).logits[0]
    logits = logits[-IDS.shape[1] :]  # some versions return those at the rows too
    torch.testing.assert_close(logits, logits_behind(ROWS, model_type))
    assert (logits - base).abs().max() > 0.1  # no silent base model
    assert torch.equal(adapted.get_prompt_embedding_to_save("default"), ROWS)


def test_rows_and_manifest_survive_peft_and_us(tmp_path: Path) -> None:
    manifest = Manifest(template="<|VIRTUAL_PROMPT_0|>{글}", slots=[4])
    write_adapter(tmp_path / "ours", ROWS, manifest, base_model=None)
    found = read_adapter(tmp_path / "ours", d_model=D_MODEL)
    assert torch.equal(found.rows, ROWS)
    assert found.manifest == manifest
    peft.PeftModel.from_pretrained(tiny_model("gpt2"), tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    again = read_adapter(tmp_path / "theirs", d_model=D_MODEL)
    assert torch.equal(again.rows, ROWS)
    assert again.manifest == Manifest()


@pytest.mark.parametrize(
    "config",
    [
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        peft.PromptEncoderConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=4,
            encoder_reparameterization_type="LSTM",
            encoder_hidden_size=16,
            encoder_dropout=0.0,
        ),
        peft.PromptEncoderConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=4,
            encoder_reparameterization_type="MLP",
            encoder_hidden_size=16,
            encoder_dropout=0.0,
        ),
    ],
    ids=["prompt tuning", "LSTM", "MLP"],
)
def test_an_adapter_that_peft_trained_is_read_as_peft_serves_it(tmp_path: Path, config: peft.PeftConfig) -> None:
    model = trained(config, tmp_path)
    found = read_adapter(tmp_path, d_model=D_MODEL)
    assert found.rows.shape == (4, D_MODEL)
    with torch.inference_mode():
        served = model(input_ids=IDS).logits[0, -IDS.shape[1] :]
    torch.testing.assert_close(logits_behind(found.rows, "gpt2"), served)


class TestRefusals:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write_adapter(tmp_path, ROWS, Manifest(), base_model=None)
        return tmp_path

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"peft_type": "LORA"}, "peft_type"),
            ({"peft_type": "PREFIX_TUNING"}, "peft_type"),
            ({"task_type": "SEQ_2_SEQ_LM"}, "task_type"),
            ({"num_transformer_submodules": 2}, "num_transformer_submodules"),
            ({"num_virtual_tokens": 5}, "two adapters"),
            ({"token_dim": 64}, "two adapters"),
        ],
    )
    def test_another_kind_of_adapter(self, folder: Path, changed: dict[str, Any], said: str) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
        with pytest.raises(HunminError, match=said):
            read_adapter(folder, d_model=D_MODEL)

    def test_a_lora_adapter_of_peft(self, tmp_path: Path) -> None:
        peft.get_peft_model(
            tiny_model("llama"), peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
        ).save_pretrained(tmp_path)
        with pytest.raises(HunminError, match="peft_type"):
            read_adapter(tmp_path, d_model=D_MODEL)

    def test_a_folder_without_its_files(self, folder: Path) -> None:
        (folder / "adapter_model.safetensors").unlink()
        with pytest.raises(HunminError, match=r"adapter_model\.safetensors does not exist"):
            read_adapter(folder, d_model=D_MODEL)

    def test_rows_of_another_width(self, folder: Path) -> None:
        (folder / "adapter_model.safetensors").write_bytes(write_file(torch.ones(4, 16), Manifest()))
        with pytest.raises(HunminError, match="16 wide"):
            read_adapter(folder, d_model=D_MODEL)

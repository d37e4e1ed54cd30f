"""Checkpoints: those we serve give the logits of transformers; those we cannot are refused, with folder and reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_modeling import linear
from hunmin_modeling.attention import PackedBatch, Span
from hunmin_modeling.checkpoint import Checkpoint, load_checkpoint
from hunmin_modeling.config import MODEL_TYPES, read_config
from hunmin_modeling.kv_pool import KvPool, kv_bytes_per_token
from hunmin_modeling.linear import frozen_weights
from hunmin_modeling.testing import save_tiny_checkpoint, tiny_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

Parts = list[tuple[int, int, int]]  # sequence, start, count
BLOCKS = [[3, 5, 7, 9, 11, 13], [4, 0, 1, 2, 19, 6]]
SCHEDULES: dict[str, list[Parts]] = {
    "whole": [[(0, 0, 40), (1, 0, 40)]],
    "chunks": [[(0, 0, 10), (1, 0, 25)], [(1, 25, 15), (0, 10, 17)], [(0, 27, 13)]],
    "decode": [[(0, 0, 20), (1, 0, 30)], *([(0, 20 + t, 1), (1, 30 + t, 1)] for t in range(10)), [(0, 30, 10)]],
    "one": [[(0, 0, 1), (1, 0, 40)], [(0, 1, 39)]],
    "mixed": [[(0, 0, 20)], [(0, 20, 1), (1, 0, 30)], [(0, 21, 1), (1, 30, 10)], [(0, 22, 18)]],
}

YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 48}
MSCALE = {"mscale": 0.7, "mscale_all_dim": 1.1}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 48,
}
VARIANTS = [
    pytest.param(model_type, config, id=f"{model_type}-{name}")
    for model_type, name, config in (
        ("llama", "linear", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}}),
        ("llama", "llama3", {"rope_parameters": {**LLAMA3, "rope_theta": 500.0}}),
        ("llama", "yarn", {"rope_parameters": {**YARN, "rope_theta": 500.0}}),
        ("llama", "yarn-mscale", {"rope_parameters": {**YARN, **MSCALE, "truncate": False}}),
        ("llama", "biases", {"attention_bias": True, "mlp_bias": True}),
        ("llama", "tied", {"tie_word_embeddings": True}),
        ("llama", "wide-heads", {"head_dim": 12}),
        ("hyperclovax", "without-post-norm", {"use_post_norm": False}),
        ("hyperclovax", "plain", {"attention_multiplier": None}),
        ("gpt_neox", "one-after-the-other", {"use_parallel_residual": False}),
        ("gpt_neox", "all-turn", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.0}}),
        ("gpt_neox", "without-biases", {"attention_bias": False, "hidden_act": "gelu_fast"}),
        ("gpt2", "scaled-by-layer", {"scale_attn_by_inverse_layer_idx": True}),
        ("gpt2", "unscaled", {"scale_attn_weights": False, "n_inner": 40, "activation_function": "relu"}),
        ("gpt2", "untied", {"tie_word_embeddings": False}),
    )
]


def packed_logits(checkpoint: Checkpoint, ids: torch.Tensor, schedule: list[Parts]) -> torch.Tensor:
    """Run the two sequences `ids` [2, T] in the parts of `schedule` and return the logits [2, T, vocab]."""
    pool = KvPool(checkpoint.config, blocks=20, block_size=8, dtype=checkpoint.dtype)
    found = torch.zeros(*ids.shape, checkpoint.vocab_size)
    for parts in schedule:
        batch = PackedBatch(pool, [Span(BLOCKS[i], start, count) for i, start, count in parts])
        tokens = torch.cat([ids[i, start : start + count] for i, start, count in parts])
        logits, _ = checkpoint.forward(checkpoint.embed(tokens), batch.positions, batch, rows=torch.arange(len(tokens)))
        for (i, start, count), rows in zip(parts, logits.split([part[2] for part in parts]), strict=True):
            found[i, start : start + count] = rows.float()
    return found


def as_transformers(folder: Path) -> None:
    """Compare our logits of what `folder` holds with those of transformers."""
    ids = torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)(ids).logits
    found = packed_logits(load_checkpoint(folder), ids, SCHEDULES["whole"])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, change: Callable[[Any], Any]) -> None:
    path = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}, path, {"format": "pt"})


class TestServed:
    @pytest.mark.parametrize("schedule", SCHEDULES)
    @pytest.mark.parametrize("model_type", sorted(MODEL_TYPES))
    def test_gives_the_logits_of_transformers(self, tmp_path: Path, model_type: str, schedule: str) -> None:
        checkpoint = load_checkpoint(save_tiny_checkpoint(tmp_path, model_type))
        ids = torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = tiny_model(model_type)(ids).logits
        found = packed_logits(checkpoint, ids, SCHEDULES[schedule])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize(("model_type", "config"), VARIANTS)
    def test_gives_them_in_every_variant(self, tmp_path: Path, model_type: str, config: dict[str, Any]) -> None:
        model = tiny_model(model_type, **config)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() == 1:  # norms and biases, of which a new model has only ones and zeros
                    weight.add_(torch.randn(len(weight)) / 10)
        model.save_pretrained(tmp_path)
        as_transformers(tmp_path)

    def test_reads_polyglot_s_configuration_and_either_name_of_its_head(self, tmp_path: Path) -> None:
        save_tiny_checkpoint(tmp_path, "gpt_neox")
        edit_config(tmp_path, rope_parameters=None, rotary_pct=0.5, rotary_emb_base=500, rope_theta=3.0)
        as_transformers(tmp_path)
        edit_weights(tmp_path, lambda tensors: tensors | {"lm_head.weight": tensors.pop("embed_out.weight")})
        as_transformers(tmp_path)

    @pytest.mark.parametrize(
        "change",
        [
            lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()},
            lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].flip(0)},
            lambda tensors: tensors | {"lm_head.weight": tensors.pop("model.embed_tokens.weight")},
            lambda tensors: {name.removeprefix("model."): tensor for name, tensor in tensors.items()},
        ],
        ids=["twice", "apart", "head alone", "without prefix"],
    )
    def test_finds_what_a_tied_file_holds(self, tmp_path: Path, change: Callable[[Any], Any]) -> None:
        edit_weights(save_tiny_checkpoint(tmp_path, "llama", tie_word_embeddings=True), change)
        as_transformers(tmp_path)

    def test_reads_the_whole_file_where_an_index_lies_beside_it(self, tmp_path: Path) -> None:
        tiny_model("gpt2", seed=1).save_pretrained(tmp_path, max_shard_size="50KB")
        save_tiny_checkpoint(tmp_path / "new", "gpt2")
        (tmp_path / "new" / "model.safetensors").rename(tmp_path / "model.safetensors")
        as_transformers(tmp_path)

    def test_reads_rotary_positions_as_older_files_say_them(self, tmp_path: Path) -> None:
        rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
        new = read_config(save_tiny_checkpoint(tmp_path / "new", "llama", rope_parameters=rope))
        path = save_tiny_checkpoint(tmp_path / "old", "llama") / "config.json"
        old = json.loads(path.read_text()) | {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
        del old["rope_parameters"]
        path.write_text(json.dumps(old))
        assert read_config(path.parent) == new

    @pytest.mark.parametrize("schedule", SCHEDULES)
    def test_gives_nearly_the_same_in_bfloat16(self, tmp_path: Path, schedule: str) -> None:
        checkpoint = load_checkpoint(save_tiny_checkpoint(tmp_path, "llama"), dtype=torch.bfloat16)
        ids = torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = tiny_model("llama").to(torch.bfloat16)(ids).logits.float()
        found = packed_logits(checkpoint, ids, SCHEDULES[schedule])
        assert (found - expected).abs().mean() < 0.1 * expected.abs().mean()

    @pytest.mark.parametrize("model_type", sorted(MODEL_TYPES))
    def test_computes_in_float32_where_the_processor_does_not_multiply_in_bfloat16(
        self, tmp_path: Path, model_type: str, monkeypatch
    ) -> None:
        monkeypatch.setattr(linear, "multiplies_bfloat16", lambda: False)
        folder = save_tiny_checkpoint(tmp_path, model_type)
        checkpoint = load_checkpoint(folder, dtype=torch.bfloat16)
        assert (checkpoint.dtype, checkpoint.activation_dtype) == (torch.bfloat16, torch.float32)
        ids = torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(1))
        rounded = tiny_model(model_type)
        with torch.no_grad():
            for weight in rounded.parameters():
                weight.copy_(weight.bfloat16())
            expected = rounded(ids).logits
        assert torch.allclose(packed_logits(checkpoint, ids, SCHEDULES["whole"]), expected, atol=1e-5)

    def test_says_what_it_is(self, tmp_path: Path) -> None:
        checkpoint = load_checkpoint(save_tiny_checkpoint(tmp_path, "llama", context_length=64))
        assert checkpoint.architecture == "LlamaForCausalLM"
        assert checkpoint.parameters == tiny_model("llama", context_length=64).num_parameters()
        assert (checkpoint.context_length, checkpoint.vocab_size, checkpoint.end_ids) == (64, 97, {0})
        assert kv_bytes_per_token(checkpoint.config, checkpoint.dtype) == 2 * 2 * 2 * 8 * 4

    def test_has_frozen_weights_and_a_digest_of_them(self, tmp_path: Path) -> None:
        one = load_checkpoint(save_tiny_checkpoint(tmp_path / "one", "gpt2", seed=1))
        same = load_checkpoint(save_tiny_checkpoint(tmp_path / "same", "gpt2", seed=1))
        other = load_checkpoint(save_tiny_checkpoint(tmp_path / "other", "gpt2", seed=2))
        weights = list(frozen_weights(one.model))
        assert len(weights) > 20
        assert not any(weight.requires_grad for _, weight in weights)
        assert one.digest == same.digest != other.digest

    def test_reads_shards(self, tmp_path: Path) -> None:
        tiny_model("gpt2").save_pretrained(tmp_path, max_shard_size="50KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
        assert load_checkpoint(tmp_path).architecture == "GPT2LMHeadModel"


class TestRefused:
    def refusal(self, folder: Path) -> HunminError:
        with pytest.raises(HunminError) as refused:
            load_checkpoint(folder)
        assert str(folder) in refused.value.message
        return refused.value

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        assert self.refusal(tmp_path / "nowhere").code == ErrorCode.NOT_FOUND

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        assert "config.json" in self.refusal(tmp_path).message

    def test_pickle(self, tmp_path: Path) -> None:
        save_tiny_checkpoint(tmp_path, "gpt2")
        (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
        assert "pickle is never read" in self.refusal(tmp_path).message

    @pytest.mark.parametrize("kept", [0, 7, 5_000])
    def test_truncated_weights(self, tmp_path: Path, kept: int) -> None:
        weights = save_tiny_checkpoint(tmp_path, "gpt2") / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:kept])
        assert "is damaged" in self.refusal(tmp_path).message

    def test_missing_weights(self, tmp_path: Path) -> None:
        save_tiny_checkpoint(tmp_path, "gpt2")
        edit_config(tmp_path, n_layer=3)
        assert "missing keys" in self.refusal(tmp_path).message

    def test_weights_of_another_shape(self, tmp_path: Path) -> None:
        save_tiny_checkpoint(tmp_path, "llama")
        edit_config(tmp_path, vocab_size=98)
        assert "mismatched keys" in self.refusal(tmp_path).message

    def test_a_model_that_our_attention_would_get_wrong(self, tmp_path: Path) -> None:
        save_tiny_checkpoint(tmp_path, "llama")
        edit_config(tmp_path, model_type="mistral", architectures=["MistralForCausalLM"])
        assert "mistral" in self.refusal(tmp_path).message

    def test_rotary_angles_that_depend_on_the_batch(self, tmp_path: Path) -> None:
        save_tiny_checkpoint(tmp_path, "llama")
        edit_config(tmp_path, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0})
        assert "dynamic" in self.refusal(tmp_path).message

    def test_a_config_that_is_not_json(self, tmp_path: Path) -> None:
        save_tiny_checkpoint(tmp_path, "gpt2")
        (tmp_path / "config.json").write_text("{")
        assert "config.json" in self.refusal(tmp_path).message

    def test_an_index_that_is_no_index(self, tmp_path: Path) -> None:
        (save_tiny_checkpoint(tmp_path, "gpt2") / "model.safetensors").unlink()
        (tmp_path / "model.safetensors.index.json").write_text("[]")
        assert "index" in self.refusal(tmp_path).message

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
            ({"model_type": ["llama"]}, "model type"),
            ({"rope_scaling": 5}, "config.json is not valid"),
            ({"rope_scaling": {"type": "linear"}}, "needs factor"),
            ({"num_attention_heads": 5}, "5 heads"),
            ({"head_dim": 7}, "turn in pairs"),
            ({"hidden_act": "xielu"}, "hidden_act"),
        ],
    )
    def test_a_config_that_cannot_be(self, tmp_path: Path, changes: dict[str, object], reason: str) -> None:
        save_tiny_checkpoint(tmp_path, "llama")
        edit_config(tmp_path, head_dim=None)
        edit_config(tmp_path, **changes)
        assert reason in self.refusal(tmp_path).message

    @pytest.mark.parametrize("ids", ["2", [[1]], 1.5])
    def test_end_ids_that_are_none(self, tmp_path: Path, ids: object) -> None:
        save_tiny_checkpoint(tmp_path, "llama")
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
        assert "generation_config.json" in self.refusal(tmp_path).message

    def test_weights_in_codes(self, tmp_path: Path) -> None:
        save_tiny_checkpoint(tmp_path, "llama")
        edit_weights(tmp_path, lambda tensors: {name: t.to(torch.float8_e4m3fn) for name, t in tensors.items()})
        assert "should be a plain float" in self.refusal(tmp_path).message

    @pytest.mark.parametrize("shard", [5, None])
    def test_an_index_of_no_files(self, tmp_path: Path, shard: object) -> None:
        (save_tiny_checkpoint(tmp_path, "gpt2") / "model.safetensors").unlink()
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
        assert "index" in self.refusal(tmp_path).message

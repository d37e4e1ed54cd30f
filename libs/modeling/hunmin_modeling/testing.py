"""Tiny random checkpoints of every model type that we serve, for the tests of whoever loads or serves one."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    HyperCLOVAXConfig,
    HyperCLOVAXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

# Weights far larger than a trained model's, so that the two most likely tokens are further apart than rounding errors.
_SPREAD = 0.4


def tiny_model(
    model_type: str, *, vocab_size: int = 97, context_length: int = 96, seed: int = 0, **config: Any
) -> PreTrainedModel:
    """Return a random model of two layers and four heads; Llama and HyperCLOVAX share key-value heads in pairs.

    `config` is what else transformers' configuration of it is told.
    """
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "initializer_range": _SPREAD,
        "bos_token_id": 0,
        "eos_token_id": 0,
        **config,
    }
    rotary = {**shape, "intermediate_size": 48, "max_position_embeddings": context_length}
    model: PreTrainedModel
    if model_type == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(**shape, n_positions=context_length))
    elif model_type == "gpt_neox":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**rotary))
    elif model_type == "llama":
        model = LlamaForCausalLM(LlamaConfig(**rotary, num_key_value_heads=2))
    elif model_type == "hyperclovax":
        rotary = {"embedding_multiplier": 2.0, "attention_multiplier": 0.3, "residual_multiplier": 0.7, **rotary}
        model = HyperCLOVAXForCausalLM(HyperCLOVAXConfig(**{"logits_scaling": 0.5, "num_key_value_heads": 2} | rotary))
    else:
        raise ValueError(f"no tiny model of type {model_type}")
    model.train(False)
    return model


def save_tiny_checkpoint(folder: Path, model_type: str, **shape: Any) -> Path:
    """Write a `tiny_model` to `folder` as transformers does, and return the folder."""
    tiny_model(model_type, **shape).save_pretrained(folder)
    return folder

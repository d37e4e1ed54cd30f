"""From a training checkpoint to a model folder that transformers and the generation service load."""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hunmin-train export`."""
    parser.add_argument("--run", type=Path, required=True, help="folder of `hunmin-train pretrain`", dest="run_folder")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer folder that the run was trained with")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write into")


def run(args: argparse.Namespace) -> None:
    """Write config.json, model.safetensors in bfloat16 (half the bytes to ship) and the tokenizer's files."""
    model = GPT2LMHeadModel(GPT2Config.from_pretrained(args.run_folder))
    state = torch.load(args.run_folder / "checkpoint.pt", weights_only=True)
    model.load_state_dict(state["model"])
    model.config.use_cache = True
    model.bfloat16().save_pretrained(args.out)
    if args.tokenizer.resolve() != args.out.resolve():
        shutil.copytree(args.tokenizer, args.out, dirs_exist_ok=True)
    print(f"step {state['step']} written to {args.out}")

"""Makes a tiny random GPT-2 with the tokenizer of another model's folder: `random_model.py TOKENIZER_FOLDER OUT`.

Large enough that a long completion takes seconds, small enough to load at once.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel


def main(tokenizer_folder: Path, out: Path) -> None:
    """Write the model."""
    shutil.copytree(tokenizer_folder, out)
    vocabulary = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=-(-len(vocabulary) // 64) * 64, n_positions=512, n_embd=64, n_layer=4, n_head=4)
    GPT2LMHeadModel(config).save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

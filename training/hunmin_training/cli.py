"""`hunmin-train COMMAND`: the steps of training a model, each a module with `add_arguments` and `run`."""

import argparse
import importlib

COMMANDS = {
    "tokenizer": "train a tokenizer from text files",
    "corpus": "turn text files into a stream of token ids",
    "pretrain": "train a model on a corpus, from scratch or from its last checkpoint",
    "export": "write a checkpoint as a Hugging Face folder",
    "evaluate": "measure a model folder: bits per byte, NSMC zero-shot and p-tuned, sample completions",
    "sample": "draw the labelled reviews that ship with a product",
    "card": "write the model card from what was measured",
}


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="hunmin-train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f"hunmin_training.{name}")
        command = commands.add_parser(name, help=summary, description=summary)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args()
    args.run(args)

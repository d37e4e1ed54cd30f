"""Writes the model card: what the model is made of, what it scored, what it says, and what it is not good for."""

import argparse
import json
from pathlib import Path
from string import Template
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MODEL_CARD = Path(__file__).with_name("model_card.md")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def draw_loss(metrics: list[dict[str, Any]], path: Path) -> None:
    """Draw training loss and held-out bits per byte over tokens seen."""
    figure, loss_axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for axis, name, label, color in [
        (loss_axis, "loss", "training loss (nats per token)", "tab:blue"),
        (loss_axis.twinx(), "bits_per_byte", "held-out bits per byte", "tab:red"),
    ]:
        points = [(line["tokens"] / 1e6, line[name]) for line in metrics if name in line]
        axis.plot(*zip(*points, strict=True), color=color, linewidth=0.8)
        axis.set_ylabel(label, color=color)
    loss_axis.set_xlabel("tokens seen (millions)")
    loss_axis.set_ylim(top=6.5)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def table_of_samples(samples: list[dict[str, str]]) -> str:
    """Return prompts and completions as Markdown rows."""
    escaped = [{key: text.replace("|", "\\|").replace("\n", " ") for key, text in sample.items()} for sample in samples]
    return "\n".join(f"| {sample['prompt']} | {sample['completion']} |" for sample in escaped)


def verdict(figures: dict[str, Any]) -> str:
    """Say whether the aim was reached: p-tuned accuracy against characters and a linear classifier."""
    tuned, characters = figures["nsmc_p_tuned"], figures["nsmc_characters"]
    if tuned > characters:
        return (
            f"The soft prompt is ahead of the character baseline by {100 * (tuned - characters):.2f} points; the "
            "standard error of each figure is 0.9 points."
        )
    return (
        f"**The aim is not reached**: the soft prompt stays {100 * (characters - tuned):.2f} points behind the "
        "character baseline. Take this model as a demonstration of the studio, not as a classifier."
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hunmin-train card`."""
    parser.add_argument(
        "--run", type=Path, required=True, help="folder with metrics.jsonl, figures.json", dest="run_folder"
    )
    parser.add_argument("--corpus", type=Path, required=True, help="folder with corpus.json")
    parser.add_argument("--model", type=Path, required=True, help="model folder to describe")


def run(args: argparse.Namespace) -> None:
    """Write README.md and loss.png into the model folder."""
    metrics = read_metrics(args.run_folder / "metrics.jsonl")
    figures = json.loads((args.run_folder / "figures.json").read_text(encoding="utf-8"))
    corpus = json.loads((args.corpus / "corpus.json").read_text(encoding="utf-8"))
    config = json.loads((args.model / "config.json").read_text(encoding="utf-8"))
    draw_loss(metrics, args.model / "loss.png")
    tokens = metrics[-1]["tokens"]
    counts = corpus["counts"]
    kept = {name: f"{counts[f'{name}.kept']:,}" for name in ("reviews", "ratings", "chat")}
    left_out = {f"{name}_duplicates": f"{counts[f'{name}.duplicate']:,}" for name in ("reviews", "ratings")}
    in_test = counts["reviews.in_test_set"] + counts["ratings.in_test_set"]
    card = Template(MODEL_CARD.read_text(encoding="utf-8")).substitute(
        kept,
        **left_out,
        in_test=f"{in_test:,}",
        parameters=f"{figures['parameters'] / 1e6:.1f}M",
        layers=config["n_layer"],
        d_model=config["n_embd"],
        heads=config["n_head"],
        context=config["n_positions"],
        vocab_size=f"{config['vocab_size']:,}",
        tokens=f"{tokens / 1e6:.1f}M",
        passes=f"{tokens / corpus['tokens']:.1f}",
        pass_tokens=f"{corpus['tokens'] / 1e6:.1f}M",
        held_out=f"{figures['held_out_reviews']:,}",
        bits_per_byte=f"{figures['bits_per_byte']:.3f}",
        zero_shot=f"{100 * figures['nsmc_zero_shot']:.2f} %",
        characters=f"{100 * figures['nsmc_characters']:.2f} %",
        p_tuned=f"{100 * figures['nsmc_p_tuned']:.2f} %",
        verdict=verdict(figures),
        samples=table_of_samples(figures["samples"]),
    )
    (args.model / "README.md").write_text(card, encoding="utf-8")

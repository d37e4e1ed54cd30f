"""Trains a prompt encoder on film reviews against a running studio, without the model's weights, and calls the result.

    export HUNMIN_API_KEY=hm_…                          # `make run` prints it, `make key` makes another
    .venv/bin/python libs/client/examples/sentiment.py ratings_train.txt

The file is NSMC's (https://github.com/e9t/nsmc, CC0): tab-separated id, review, label (1 positive, 0 negative), with a
header line.
"""

import argparse
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from hunmin import Client, GradientExample
from hunmin.tuning import LstmPromptEncoder, PromptLoss

VERBALIZERS = (" 최악", " 최고")  # what stands for label 0, and for label 1
TEMPLATE = "<|VIRTUAL_PROMPT_0|>{review}<|VIRTUAL_PROMPT_1|>"
SLOTS = (10, 10)
NO_DATA = "name NSMC's ratings_train.txt, or set HUNMIN_DATA to the folder that holds nsmc/ratings_train.txt"

Labelled = tuple[str, int]


def train(client: Client, model: str, reviews: Sequence[Labelled], *, epochs: int, batch: int, seed: int) -> bytes:
    """Return the file of a soft prompt that makes `model` tell good reviews from bad ones."""
    examples = [GradientExample(fields={"review": text}, target=VERBALIZERS[label]) for text, label in reviews]
    loss_of = PromptLoss(client, model, template=TEMPLATE, slots=SLOTS)
    encoder = LstmPromptEncoder(sum(SLOTS), loss_of.base.d_model, scale=loss_of.base.embedding_std, seed=seed)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3)
    for epoch in range(epochs):
        random.Random(seed + epoch).shuffle(examples)
        for start in range(0, len(examples), batch):
            loss = loss_of(encoder(), examples[start : start + batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", flush=True)
    return loss_of.file(encoder(), task="sentiment", seed=str(seed), reviews=str(len(reviews)))


def judge(client: Client, model: str, prompt: str | Mapping[str, str]) -> int:
    """Return the label whose verbalizer is the likelier continuation."""
    scores = client.score(model=model, prompt=prompt, continuations=VERBALIZERS).scores
    return max(range(len(scores)), key=lambda label: scores[label].logprob)


def read(path: Path, *, count: int, seed: int) -> list[Labelled]:
    """Return `count` labelled reviews drawn with `seed`."""
    rows = [line.rstrip("\n").split("\t") for line in path.open(encoding="utf-8")][1:]
    labelled = [(review.strip(), int(label)) for _, review, label in rows if review.strip()]
    return random.Random(seed).sample(labelled, count)


def main() -> None:
    """Measure, train, upload, and measure again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reviews", type=Path, nargs="?", help=NO_DATA)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--name", default="sentiment", help="what the soft prompt is called")
    parser.add_argument("--train", type=int, default=2000, help="reviews to learn from")
    parser.add_argument("--test", type=int, default=400, help="other reviews, to measure with")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.reviews is None and "HUNMIN_DATA" not in os.environ:
        parser.error(NO_DATA)
    path = args.reviews or Path(os.environ["HUNMIN_DATA"], "nsmc", "ratings_train.txt")
    reviews = read(path, count=args.train + args.test, seed=args.seed)
    learnt, tests = reviews[: args.train], reviews[args.train :]

    with Client() as client:
        right = sum(judge(client, args.model, f"{review} 한마디로") == label for review, label in tests)
        print(f"before: {right / len(tests):.1%} of {len(tests)} reviews, zero-shot", flush=True)
        file = train(client, args.model, learnt, epochs=args.epochs, batch=args.batch, seed=args.seed)
        kept = client.soft_prompts.upload(file, name=args.name, model=args.model)
        tuned = f"{kept.name}@{kept.version}"
        right = sum(judge(client, tuned, {"review": review}) == label for review, label in tests)
        print(f"after: {right / len(tests):.1%}, by the soft prompt {tuned}")
        for review in ("배우들의 연기가 훌륭했다", "시간이 아까운 영화"):
            print(f"{review} →{VERBALIZERS[judge(client, tuned, {'review': review})]}")


if __name__ == "__main__":
    main()

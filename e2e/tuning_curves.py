"""`make tuning-curves`: p-tuning through the client library beside p-tuning of the same weights in this process.

Same seed, same batches, same optimiser; only where the loss and its gradient come from differs. A second local run,
whose model computes in float64, shows how far rounding alone takes two runs apart. Writes the picture of docs/client.md
and prints its figures.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from hunmin import Client, GradientExample
from hunmin.tuning import LstmPromptEncoder, PromptLoss
from matplotlib import pyplot
from studio_process import STARTER, StudioProcess, model_environ, new_key, studio_process
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

N_VIRTUAL = 20
VERBALIZERS = (" 최악", " 최고")  # NSMC's labels 0 and 1
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "tuning-curves.png"

Batch = Sequence[GradientExample]


@dataclass
class LocalLoss:
    """The same loss as `PromptLoss`, by `transformers`' own attention and autograd, of examples given as token ids."""

    model: GPT2LMHeadModel

    def __call__(self, rows: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy over all target tokens, in nats."""
        weight = self.model.get_input_embeddings().weight
        table = torch.cat([weight, rows.flip(0).to(weight.dtype)])  # row k is at -1 - k
        inputs = [table[torch.tensor([*one.tokens, *one.target[:-1]])] for one in batch]
        logits = self.model(inputs_embeds=nn.utils.rnn.pad_sequence(inputs, batch_first=True)).logits
        at_targets = [
            logits[row, len(one.tokens) - 1 : len(one.tokens) - 1 + len(one.target)] for row, one in enumerate(batch)
        ]
        targets = torch.tensor([token for one in batch for token in one.target])
        return F.cross_entropy(torch.cat(at_targets), targets).to(rows.dtype)


def train(
    loss_of: Callable[[Tensor, Batch], Tensor], encoder: nn.Module, batches: Sequence[Batch], *, lr: float = 5e-4
) -> list[float]:
    """Train `encoder` on each batch once, and return the losses."""
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=lr)
    losses = []
    for batch in batches:
        loss = loss_of(encoder(), batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def local_model(dtype: torch.dtype = torch.float32) -> GPT2LMHeadModel:
    """Load the weights that the studio serves."""
    model = GPT2LMHeadModel.from_pretrained(STARTER, dtype=dtype, local_files_only=True)
    return model.eval().requires_grad_(False)


def as_batches(
    client: Client, tokenizer: str, labelled: Sequence[tuple[str, int]], *, size: int, n_virtual: int = N_VIRTUAL
) -> list[Batch]:
    """Return labelled reviews as batches: half of the rows, the review, the other half, then its verbalizer."""
    half = n_virtual // 2
    before, after = list(range(-1, -1 - half, -1)), list(range(-1 - half, -1 - n_virtual, -1))
    targets = [client.tokenizers.encode(tokenizer, verbalizer).ids[:1] for verbalizer in VERBALIZERS]
    examples = []
    for review, label in labelled:
        ids = client.tokenizers.encode(tokenizer, review).ids
        examples.append(GradientExample(tokens=[*before, *ids, *after], target=targets[label]))
    return [examples[start : start + size] for start in range(0, len(examples), size)]


def read_reviews(path: Path, count: int) -> list[tuple[str, int]]:
    """Return the first `count` labelled reviews of an NSMC file: TSV id, document, label; header; no quoting."""
    rows = [line.rstrip("\n").split("\t") for line in path.open(encoding="utf-8")][1:]
    return [(review.strip(), int(label)) for _, review, label in rows if review.strip()][:count]


def apart(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return how far two curves are apart at each step."""
    return [abs(a - b) for a, b in zip(one, other, strict=True)]


def draw(curves: Mapping[str, list[float]], path: Path) -> None:
    """Write the picture: the curves above, how far they are apart below."""
    figure, (above, below) = pyplot.subplots(2, sharex=True, figsize=(7, 5), height_ratios=(2, 1))
    above.plot(curves["local"], color="#c44", linewidth=3, alpha=0.5, label="local: the weights in this process")
    above.plot(curves["client"], color="#136", linewidth=1, label="client library: the weights on the server")
    above.set(ylabel="loss, nats", yscale="log")
    above.legend()
    for name, color, label in (
        ("client", "#136", "client library and local"),
        ("float64", "#999", "local in float64 and local"),
    ):
        differences = [difference or float("nan") for difference in apart(curves[name], curves["local"])]
        below.semilogy(differences, color=color, linewidth=1, label=label)
    below.set(xlabel="step", ylabel="difference")
    below.legend(fontsize="small")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Train all three, and say how far they are apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reviews", type=Path, help="NSMC's ratings_train.txt")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=PICTURE)
    args = parser.parse_args()
    curves, seconds = {}, {}
    with tempfile.TemporaryDirectory(prefix="hunmin-curves-") as home:
        process = StudioProcess(Path(home), new_key(), one_process=True, environ=model_environ(STARTER))
        with studio_process(process), Client(base_url=process.url, api_key=process.key) as client:
            remote = PromptLoss(client, process.model)
            reviews = read_reviews(args.reviews, args.steps * args.batch)
            batches = as_batches(client, process.model, reviews, size=args.batch)
            for name, loss_of in (
                ("client", remote),
                ("local", LocalLoss(local_model())),
                ("float64", LocalLoss(local_model(torch.float64))),
            ):
                encoder = LstmPromptEncoder(
                    N_VIRTUAL, remote.base.d_model, scale=remote.base.embedding_std, seed=args.seed
                )
                started = time.perf_counter()
                curves[name] = train(loss_of, encoder, batches, lr=args.lr)
                seconds[name] = round(time.perf_counter() - started, 1)
    draw(curves, args.out)
    figures = {
        name: {
            "seconds": seconds[name],
            "mean of the last 20 losses": sum(losses[-20:]) / len(losses[-20:]),
            "greatest difference to local": max(apart(losses, curves["local"])),
        }
        for name, losses in curves.items()
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()

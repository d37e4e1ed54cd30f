"""`make bench-gradients`: gradients through the service's worker beside plain local autograd, on the same weights.

A batch is 8 prompts of different lengths after 20 virtual tokens, each with a target of some tokens. The baseline is
what one would write at home with transformers: one right-padded batch of embeddings, and the loss from `labels`; beside
it stands one that takes care to compute logits at the targets alone. Alternating rounds, medians, prompt and target
tokens a second. Ours runs at its low priority, so other programs on the machine slow it more than the baseline.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from engine_load import SHAPE
from hunmin_generation.gradients.worker import GradientWorker
from hunmin_modeling.checkpoint import Checkpoint, load_checkpoint
from hunmin_modeling.gradient import Example, Gradients, Wanted
from hunmin_modeling.linear import multiplies_bfloat16
from report import Metric, Target, report
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedModel, logging

BATCH, N_VIRTUAL = 8, 20
PROMPT, TARGET = (32, 128), (1, 8)  # tokens, the least and the most
AGREEMENT = {torch.float32: 1e-5, torch.bfloat16: 0.1}  # how far the gradients may lie apart, relative

Run = Callable[[list[Example], Tensor], Tensor]


def batch_of(seed: int) -> list[Example]:
    """Draw a batch."""
    rng = random.Random(seed)  # noqa: S311  # lengths, not secrets

    def tokens(least: int, most: int) -> list[int]:
        return [rng.randrange(1, SHAPE.vocab_size) for _ in range(rng.randint(least, most))]

    return [Example([*range(-1, -N_VIRTUAL - 1, -1), *tokens(*PROMPT)], tokens(*TARGET)) for _ in range(BATCH)]


def padded(model: PreTrainedModel, examples: list[Example], rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return embeddings [batch, longest, d_model] and the mask of a right-padded batch."""
    embed = model.get_input_embeddings()
    sequences = [torch.cat([rows, embed(torch.tensor([*e.prompt[N_VIRTUAL:], *e.target]))]) for e in examples]
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    embeddings = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    return embeddings, (torch.arange(int(lengths.max())) < lengths[:, None]).long()


def with_labels(model: PreTrainedModel, examples: list[Example], rows: Tensor) -> Tensor:
    """Plain local autograd: the loss that transformers computes from labels."""
    rows = rows.clone().requires_grad_()
    embeddings, mask = padded(model, examples, rows)
    labels = torch.full(mask.shape, -100)
    for number, example in enumerate(examples):
        begin = len(example.prompt)
        labels[number, begin : begin + len(example.target)] = torch.tensor(example.target)
    model(inputs_embeds=embeddings, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
    return rows.grad


def at_targets(model: PreTrainedModel, examples: list[Example], rows: Tensor) -> Tensor:
    """The same with logits at the target positions alone."""
    rows = rows.clone().requires_grad_()
    embeddings, mask = padded(model, examples, rows)
    hidden = model.base_model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).last_hidden_state
    places = [(n, len(e.prompt) - 1 + i) for n, e in enumerate(examples) for i in range(len(e.target))]
    logits = model.lm_head(hidden[[n for n, _ in places], [place for _, place in places]])
    F.cross_entropy(logits.float(), torch.tensor([t for e in examples for t in e.target])).backward()
    return rows.grad


async def through_worker(
    worker: GradientWorker, checkpoint: Checkpoint, examples: list[Example], rows: Tensor, max_tokens: int
) -> Tensor:
    """Ours, as the service runs it."""
    wanted = Wanted(divisor=sum(len(example.target) for example in examples))
    batch = Gradients(checkpoint, examples, rows, wanted, max_tokens=max_tokens)
    async for _ in worker.compute(batch):
        pass
    return batch.rows


def compare(folder: Path, dtype: torch.dtype, *, rounds: int, threads: int, max_tokens: int) -> Metric:
    """Measure all three."""
    local = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).requires_grad_(False).eval()
    )
    checkpoint = load_checkpoint(folder, dtype=dtype)
    rows = torch.randn(N_VIRTUAL, SHAPE.hidden_size).to(dtype) * SHAPE.initializer_range
    with asyncio.Runner() as runner:
        worker = GradientWorker(threads=threads, max_queue=1)
        runner.run(_start(worker))
        sides: dict[str, Run] = {
            "ours": lambda e, r: runner.run(through_worker(worker, checkpoint, e, r, max_tokens)),
            "baseline": lambda e, r: with_labels(local, e, r),
            "baseline_at_targets": lambda e, r: at_targets(local, e, r),
        }
        found = {side: run(batch_of(-1), rows).float() for side, run in sides.items()}
        apart = float((found["ours"] - found["baseline"]).norm() / found["baseline"].norm())
        if apart > AGREEMENT[dtype]:
            raise SystemExit(f"the gradients lie {apart:.1e} apart: what is measured is not the same")
        speeds: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(rounds):
            examples = batch_of(number)
            for side in sorted(sides, reverse=number % 2 == 1):  # side by side: a slow minute slows all
                begin = time.perf_counter()
                sides[side](examples, rows)
                tokens = sum(len(example.prompt) + len(example.target) for example in examples)
                speeds[side].append(tokens / (time.perf_counter() - begin))
        runner.run(worker.close())
    medians = {side: statistics.median(speed) for side, speed in speeds.items()}
    return {
        **{side: round(speed, 1) for side, speed in medians.items()},
        "ratio": round(medians["ours"] / medians["baseline"], 2),
        "ratio_at_targets": round(medians["ours"] / medians["baseline_at_targets"], 2),
        "unit": "token/s",
    }


async def _start(worker: GradientWorker) -> None:
    worker.start()


def main() -> None:
    """Run every comparison, print it, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    # Where products in bfloat16 are not the processor's, the baseline takes minutes for a batch.
    dtypes = ["bfloat16", "float32"] if multiplies_bfloat16() else ["float32"]
    parser.add_argument("--dtype", nargs="+", choices=["bfloat16", "float32"], default=dtypes)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=512)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    metrics: dict[str, Metric] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        LlamaForCausalLM(SHAPE).to(torch.bfloat16).save_pretrained(folder)
        for dtype in arguments.dtype:
            metric = f"gradients_{BATCH}_prompts" + ("" if dtype == "bfloat16" else f"_{dtype}")
            metrics[metric] = compare(
                folder,
                getattr(torch, dtype),
                rounds=arguments.rounds,
                threads=arguments.threads,
                max_tokens=arguments.max_tokens,
            )
            print(metric, metrics[metric], flush=True)
    report("gradients", metrics, [Target(metric, least=0.9) for metric in metrics])


if __name__ == "__main__":
    main()

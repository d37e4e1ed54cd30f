"""Pretraining of a GPT-2-shaped decoder on CPU or one GPU: a plain loop, resumable at any step.

HyperCLOVA's shape (paper, Table 2: pre-LN decoder, learned positions, GELU, FFN 4 d_model), at a size for one machine.
"""

import argparse
import json
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hunmin_text.artefact import load
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from hunmin_training.likelihood import bits_per_byte

MUON_MATRICES = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


@dataclass(frozen=True)
class Schedule:
    """Warm-up, constant, linear decay to a tenth ("WSD", Hu et al. 2024, arXiv 2404.06395), in steps.

    The constant part has no end built in: a run that decays at 20M tokens and one that goes on to 60M share it.
    """

    warmup: int
    steps: int
    decay: int

    def factor(self, step: int) -> float:
        """Return the multiplier of the peak learning rate at `step` (0-based)."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        left = (self.steps - step) / max(self.decay, 1)
        return 1.0 if left >= 1 else 0.1 + 0.9 * left


class TokenRows:
    """The corpus cut into rows of `length + 1` ids, in a new order each epoch: step n is the same batch in any run."""

    def __init__(self, path: Path, *, length: int, batch: int, seed: int) -> None:
        stream = np.fromfile(path, dtype=np.uint16)
        self.rows = (len(stream) - 1) // length
        self.stream, self.length, self.batch, self.seed = stream, length, batch, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def at(self, step: int) -> Tensor:
        """Return the batch of `step`, shape [batch, length + 1]."""
        numbers = range(step * self.batch, (step + 1) * self.batch)
        rows = [self._row(*divmod(number, self.rows)) for number in numbers]
        return torch.from_numpy(np.stack(rows).astype(np.int64))

    def _row(self, epoch: int, position: int) -> "np.ndarray[Any, np.dtype[np.uint16]]":
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(self.rows)
        start = int(self._order[position]) * self.length
        return self.stream[start : start + self.length + 1]


def build_model(args: argparse.Namespace, *, vocab_size: int, eos_id: int, pad_id: int) -> GPT2LMHeadModel:
    """Return a freshly initialised model; `args.seed` fixes the weights."""
    torch.manual_seed(args.seed)
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=args.context,
        n_embd=args.d_model,
        n_layer=args.layers,
        n_head=args.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=eos_id,
        eos_token_id=eos_id,
        pad_token_id=pad_id,
        use_cache=False,
    )
    # at 256 tokens plain matrix products beat SDPA's CPU kernel: 3,400 against 2,700 tokens a core-second, compiled
    return GPT2LMHeadModel._from_config(config, attn_implementation="eager")


class Optimizer:
    """Muon on the blocks' matrices with AdamW on the rest, or AdamW alone; one learning rate for both."""

    def __init__(self, model: GPT2LMHeadModel, *, kind: str, lr: float, weight_decay: float) -> None:
        matrices: list[Tensor] = []
        rest: list[Tensor] = []
        for name, parameter in model.named_parameters():
            (matrices if kind == "muon" and name.endswith(MUON_MATRICES) else rest).append(parameter)
        decayed = [parameter for parameter in rest if parameter.ndim > 1]
        plain = [parameter for parameter in rest if parameter.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))]
        if matrices:
            # updates of AdamW's size, so that both parts share one learning rate (Moonlight, arXiv 2502.16982)
            self.parts.append(
                torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )
        self.lr = lr

    def step(self, factor: float) -> None:
        """Update the weights with `factor` of the peak learning rate, then drop the gradients."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.lr * factor
            part.step()
            part.zero_grad(set_to_none=True)


def save_checkpoint(path: Path, model: GPT2LMHeadModel, optimizer: Optimizer, step: int) -> None:
    """Write everything that the next step depends on, atomically."""
    state = {"model": model.state_dict(), "optimizer": [p.state_dict() for p in optimizer.parts], "step": step}
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(path: Path, model: GPT2LMHeadModel, optimizer: Optimizer) -> int:
    """Restore a checkpoint and return the number of steps done."""
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for part, part_state in zip(optimizer.parts, state["optimizer"], strict=True):
        part.load_state_dict(part_state)
    return int(state["step"])


def loss_of(model: GPT2LMHeadModel, rows: Tensor) -> Tensor:
    """Return the mean next-token loss in nats over rows of shape [batch, length + 1]."""
    hidden = model.transformer(rows[:, :-1]).last_hidden_state  # [batch, length, d_model]
    logits = model.lm_head(hidden)  # [batch, length, vocab]
    return F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hunmin-train pretrain`."""
    parser.add_argument("--corpus", type=Path, required=True, help="folder written by `hunmin-train corpus`")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and metrics.jsonl")
    parser.add_argument("--resume-from", type=Path, help="start from this checkpoint where OUT has none yet")
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32, help="rows a step")
    parser.add_argument("--micro-batch", type=int, default=8, help="rows a forward pass")
    parser.add_argument("--steps", type=int, required=True, help="where the learning rate has decayed to a tenth")
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--decay", type=int, required=True, help="steps of decay at the end")
    parser.add_argument("--stop-at", type=int, help="stop after this step, without decay")
    parser.add_argument("--optimizer", choices=["muon", "adamw"], default="muon")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-every", type=int, default=10)
    parser.add_argument("--eval-every", type=int, default=200)
    parser.add_argument("--eval-reviews", type=int, default=500, help="held-out reviews measured during the run")
    parser.add_argument("--checkpoint-every", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile the loss: slow to start, faster after")


class Metrics:
    """The run's log: one JSON object a line, appended, so that a resumed run goes on in the same file."""

    def __init__(self, path: Path, *, from_step: int) -> None:
        logged = path.read_text().splitlines(keepends=True) if path.exists() else []
        # what a crash logged after its last checkpoint happens again
        path.write_text("".join(line for line in logged if json.loads(line)["step"] <= from_step))
        self._path = path

    def write(self, **values: Any) -> None:
        """Append one line and show it."""
        with self._path.open("a") as file:
            file.write(json.dumps(values) + "\n")
        print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items()), flush=True)


def steps_until_signal(start: int, end: int) -> Iterator[int]:
    """Yield step numbers until the end or the first SIGTERM or SIGINT."""
    stopped: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda received, _: stopped.append(received)) for number in numbers]
    try:
        for step in range(start, end):
            if stopped:
                return
            yield step
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def run(args: argparse.Namespace) -> None:
    """Train until `--steps` (or `--stop-at`, or a signal), leaving a checkpoint that the same command goes on from."""
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = load(args.tokenizer)
    model = build_model(args, vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    model.config.save_pretrained(args.out)
    optimizer = Optimizer(model, kind=args.optimizer, lr=args.lr, weight_decay=args.weight_decay)
    checkpoint = args.out / "checkpoint.pt"
    source = checkpoint if checkpoint.exists() else args.resume_from
    start = load_checkpoint(source, model, optimizer) if source else 0
    rows = TokenRows(args.corpus / "train.bin", length=args.context, batch=args.batch, seed=args.seed)
    held_out = (args.corpus / "held_out.txt").read_text(encoding="utf-8").splitlines()[: args.eval_reviews]
    schedule = Schedule(args.warmup, args.steps, args.decay)
    metrics = Metrics(args.out / "metrics.jsonl", from_step=start)
    compute_loss = torch.compile(loss_of) if args.compile else loss_of
    step_tokens = args.batch * args.context
    began, losses, done, logged = time.perf_counter(), [], start, start

    for step in steps_until_signal(start, min(args.stop_at or args.steps, args.steps)):
        batch = rows.at(step)
        for part in batch.split(args.micro_batch):
            with torch.autocast("cpu", torch.bfloat16):
                loss = compute_loss(model, part) * (len(part) / args.batch)
            loss.backward()
            losses.append(loss.item())
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
        optimizer.step(schedule.factor(step))
        done = step + 1
        if done % args.log_every == 0:
            seconds = time.perf_counter() - began
            since = done - logged  # less than log_every right after a start
            metrics.write(step=done, tokens=done * step_tokens,
                          loss=math.fsum(losses) / since, tokens_per_s=since * step_tokens / seconds,
                          lr=args.lr * schedule.factor(step), grad_norm=norm.item())  # fmt: skip
            began, losses, logged = time.perf_counter(), [], done
        if done % args.eval_every == 0 or done == args.steps:
            metrics.write(step=done, tokens=done * step_tokens, bits_per_byte=bits_per_byte(model, tokenizer, held_out))
            began = time.perf_counter()
        if done % args.checkpoint_every == 0:
            save_checkpoint(checkpoint, model, optimizer, done)
    save_checkpoint(checkpoint, model, optimizer, done)

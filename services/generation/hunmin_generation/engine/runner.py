"""Runs one batch through the model: from the scheduler's work to chosen tokens. The only place where both are known."""

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import numpy as np
import torch
from hunmin_modeling.attention import PackedBatch, Span
from hunmin_modeling.checkpoint import Checkpoint
from hunmin_modeling.kv_pool import KvPool

from hunmin_generation.engine.sampler import Choice, Draw, Scored, sample, score
from hunmin_generation.engine.scheduler import Work


@dataclass(frozen=True)
class Task:
    """Work of one sequence, and what is wanted from it. `is_scored`: the log-probabilities of the prompt's tokens."""

    work: Work
    draw: Draw
    is_sampled: bool
    is_scored: bool


@dataclass(frozen=True)
class Outcome:
    """What came of a task. `prompt` holds a score for each prompt token that follows one of the task's tokens."""

    choice: Choice | None
    prompt: list[Scored]


class Runner:
    """A checkpoint with its KV pool."""

    def __init__(self, checkpoint: Checkpoint, *, blocks: int, block_size: int, vocab_size: int) -> None:
        """Reserve the pool. Only the first `vocab_size` tokens may be drawn: models pad their vocabulary."""
        self.checkpoint = checkpoint
        self._vocab_size = vocab_size
        self.pool = KvPool(checkpoint.config, blocks=blocks, block_size=block_size, dtype=checkpoint.dtype)

    def run(self, tasks: Rows[Task]) -> list[Outcome]:
        """Run every task in one forward pass and return their outcomes, in order."""
        order = sorted(range(len(tasks)), key=lambda i: tasks[i].work.count > 1)  # single tokens are decoded together
        ids, spans, rows, begin = [], [], [], 0
        for i in order:
            work = tasks[i].work
            sequence, end = work.sequence, begin + work.count
            ids.append(np.array(sequence.tokens[work.start : work.start + work.count], dtype=np.int64))
            spans.append(Span(blocks=sequence.blocks, start=work.start, count=work.count))
            rows.append(range(begin, end) if tasks[i].is_scored else range(end - tasks[i].is_sampled, end))
            begin = end
        wanted = [row for part in rows for row in part] or [0]  # the head takes no empty batch
        with torch.inference_mode():
            batch = PackedBatch(self.pool, spans, dtype=self.checkpoint.dtype)
            logits = self.checkpoint.logits(
                torch.from_numpy(np.concatenate(ids)), batch, torch.tensor(wanted, dtype=torch.int64)
            )[:, : self._vocab_size]  # [R, vocab]
            found = self._outcomes([tasks[i] for i in order], [len(part) for part in rows], logits)
        outcomes = dict(zip(order, found, strict=True))
        return [outcomes[i] for i in range(len(tasks))]

    def _outcomes(self, tasks: Rows[Task], counts: Rows[int], logits: torch.Tensor) -> list[Outcome]:
        """Sample from the last of each task's `counts` rows of `logits` and score the prompt with those before."""
        ends = np.cumsum(counts).tolist()
        sampled = [i for i, task in enumerate(tasks) if task.is_sampled]
        last = [ends[i] - 1 for i in sampled]
        selected = logits if len(last) == logits.shape[0] else logits[last]
        choices = dict(zip(sampled, sample(selected, [tasks[i].draw for i in sampled]) if sampled else [], strict=True))
        outcomes = []
        for i, task in enumerate(tasks):
            scores = self._score_prompt(task, logits[ends[i] - counts[i] : ends[i]]) if task.is_scored else []
            outcomes.append(Outcome(choices.get(i), scores))
        return outcomes

    def _score_prompt(self, task: Task, logits: torch.Tensor) -> list[Scored]:
        work = task.work
        end = min(work.start + work.count + 1, work.sequence.prompt_length)
        targets = work.sequence.tokens[work.start + 1 : end].tolist()
        return score(logits[: len(targets)], targets, [task.draw.logprobs or 0] * len(targets))

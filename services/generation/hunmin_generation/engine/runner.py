"""Runs one batch through the model: from the scheduler's work to chosen tokens. The only place where both are known."""

from collections.abc import Sequence as Rows
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from hunmin_modeling.attention import PackedBatch, Span
from hunmin_modeling.checkpoint import Checkpoint
from hunmin_modeling.kv_pool import KvPool
from torch import Tensor

from hunmin_generation.engine.sampler import Choice, Draw, Scored, sample, score
from hunmin_generation.engine.scheduler import Copy, Work


@dataclass(frozen=True)
class Task:
    """Work of one sequence, and what is wanted from it.

    `rows` [n_virtual, d_model] stand at the negative ids of the sequence. `scored_from`: log-probabilities of the
    prompt's tokens from that position on. `is_embedded`: the sum of the hidden states.
    """

    work: Work
    draw: Draw
    is_sampled: bool
    scored_from: int | None = None
    is_embedded: bool = False
    rows: Tensor | None = None

    @property
    def kept(self) -> range:
        """Which of the work's tokens, counted from its first, need logits."""
        count = self.work.count
        if self.scored_from is None:
            return range(count - self.is_sampled, count)
        return range(max(0, min(self.scored_from - 1 - self.work.start, count - self.is_sampled)), count)


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    `prompt`: a score for each scored token that follows one of the task's, None at a virtual one. `hidden_sum`
    [d_model] is of the task's tokens.
    """

    choice: Choice | None
    prompt: list[Scored | None]
    hidden_sum: Tensor | None = None


class Runner:
    """A checkpoint with its KV pool."""

    def __init__(self, checkpoint: Checkpoint, *, blocks: int, block_size: int, vocab_size: int) -> None:
        """Reserve the pool. Only the first `vocab_size` tokens may be drawn: models pad their vocabulary."""
        self.checkpoint = checkpoint
        self._vocab_size = vocab_size
        self.pool = KvPool(checkpoint.config, blocks=blocks, block_size=block_size, dtype=checkpoint.dtype)

    def run(self, tasks: Rows[Task], copies: Rows[Copy] = ()) -> list[Outcome]:
        """Make `copies`, then run every task in one forward pass and return their outcomes, in order."""
        order = sorted(range(len(tasks)), key=lambda i: tasks[i].work.count > 1)  # single tokens are decoded together
        with torch.inference_mode():
            for copy in copies:
                self.pool.copy(copy.source, copy.target, copy.count)
            found = self._run([tasks[i] for i in order])
        outcomes = dict(zip(order, found, strict=True))
        return [outcomes[i] for i in range(len(tasks))]

    def _run(self, tasks: Rows[Task]) -> list[Outcome]:
        spans = [Span(task.work.sequence.blocks, task.work.start, task.work.count) for task in tasks]
        begins = [0, *accumulate(span.count for span in spans)]
        wanted = [begin + row for begin, task in zip(begins[:-1], tasks, strict=True) for row in task.kept]
        batch = PackedBatch(self.pool, spans)
        logits, hidden = self.checkpoint.forward(
            self._embeddings(tasks, begins),
            batch.positions,
            batch,
            rows=torch.tensor(wanted or [0], dtype=torch.int64),  # the head takes no empty batch
            with_hidden=any(task.is_embedded for task in tasks),
        )
        outcomes = self._outcomes(tasks, logits[:, : self._vocab_size])
        if hidden is None:
            return outcomes
        return [
            replace(outcome, hidden_sum=hidden[begin:end].float().sum(0)) if task.is_embedded else outcome
            for task, outcome, begin, end in zip(tasks, outcomes, begins[:-1], begins[1:], strict=True)
        ]

    def _embeddings(self, tasks: Rows[Task], begins: Rows[int]) -> Tensor:
        """Return [T, d_model]: of tokens the model's own, of virtual ones the rows of their soft prompt."""
        pieces = [task.work.sequence.tokens[task.work.start : task.work.start + task.work.count] for task in tasks]
        ids = torch.from_numpy(np.concatenate([np.array(piece, dtype=np.int64) for piece in pieces]))
        embeddings = self.checkpoint.embed(ids.clamp(min=0))
        for task, begin, end in zip(tasks, begins[:-1], begins[1:], strict=True):
            if task.rows is not None and task.work.start < task.work.sequence.prompt_length:
                places = (ids[begin:end] < 0).nonzero()[:, 0] + begin
                if len(places):
                    embeddings[places] = task.rows[-1 - ids[places]].to(embeddings.dtype)
        return embeddings

    def _outcomes(self, tasks: Rows[Task], logits: Tensor) -> list[Outcome]:
        """Sample from the last of each task's rows of `logits`, and score the prompt with the others."""
        ends = list(accumulate(len(task.kept) for task in tasks))
        sampled = [i for i, task in enumerate(tasks) if task.is_sampled]
        last = [ends[i] - 1 for i in sampled]
        selected = logits if len(last) == logits.shape[0] else logits[last]
        choices = dict(zip(sampled, sample(selected, [tasks[i].draw for i in sampled]) if sampled else [], strict=True))
        return [
            Outcome(choices.get(i), _score_prompt(task, logits[ends[i] - len(task.kept) : ends[i]]))
            for i, task in enumerate(tasks)
        ]


def _score_prompt(task: Task, logits: Tensor) -> list[Scored | None]:
    if task.scored_from is None:
        return []
    sequence, start = task.work.sequence, task.work.start + task.kept.start
    following = sequence.tokens[start + 1 : min(start + 1 + len(task.kept), sequence.prompt_length)].tolist()
    rows = [row for row, token in enumerate(following) if token >= 0]
    scores = score(logits[rows], [following[row] for row in rows], [task.draw.logprobs or 0] * len(rows))
    by_row = dict(zip(rows, scores, strict=True))
    return [by_row.get(row) for row in range(len(following))]

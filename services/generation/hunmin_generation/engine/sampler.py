"""Chooses the next token of many sequences from their logits. Must not know the scheduler or text.

What a sequence draws depends on its own logits, parameters, seed and length, never on its neighbours in the batch: each
draw has its own random number, from a counter-based generator. Greedy rows share one `max`.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass, field

import numpy as np
import torch
from hunmin_contracts.generation import Sampling
from torch import Tensor

from hunmin_generation.engine.sequence import Sequence

# Candidates that are looked at before the whole vocabulary is sorted.
_NARROW = 256
# Below it float32 overflows, and at it only the likeliest token is ever drawn.
_COLDEST = 1e-6
_SCORE_ROWS = 64  # rows whose log-softmax is held at a time, in float32


@dataclass(frozen=True)
class Draw:
    """How tokens of one sequence are chosen. `logprobs` k: report the chosen token's log-probability and the k best."""

    sequence: Sequence
    sampling: Sampling
    seed: int
    logprobs: int | None = None

    @property
    def is_penalised(self) -> bool:
        """Whether tokens that occurred count less, or more."""
        s = self.sampling
        return s.repetition_penalty != 1 or s.frequency_penalty != 0 or s.presence_penalty != 0

    @property
    def is_cut(self) -> bool:
        """Whether only the most likely tokens may be drawn."""
        return self.sampling.top_k > 0 or self.sampling.top_p < 1


@dataclass(frozen=True)
class Scored:
    """A token with its log-probability in the model's own distribution, and the most likely ones with theirs."""

    token: int
    logprob: float
    top: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Choice:
    """The next token of a sequence; `scored` if log-probabilities were asked for. None: its logits are not numbers."""

    token: int | None
    scored: Scored | None = None


def uniform(seed: int, counter: int) -> float:
    """Return number `counter` of the stream `seed`, in [0, 1): SplitMix64 (Steele, Lea, Flood 2014), its upper 52 bits.

    Not 53: times a total in float64, the largest must stay below that total.
    """
    z = _mix(_mix(seed & _MASK) + (counter + 1) * 0x9E3779B97F4A7C15 & _MASK)
    return (z >> 12) / (1 << 52)


_MASK = (1 << 64) - 1


def _mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def sample(logits: Tensor, draws: Rows[Draw]) -> list[Choice]:
    """Choose a token for each row of `logits` [R, vocab]."""
    best, ids = logits.max(-1)  # [R]; a NaN anywhere in a row is its maximum
    chosen: list[int | None] = ids.tolist()
    elaborate = [row for row, draw in enumerate(draws) if draw.sampling.temperature > 0 or draw.is_penalised]
    if elaborate:
        picked = _elaborate(logits[elaborate].float(), [draws[row] for row in elaborate])
        for row, picked_token in zip(elaborate, picked, strict=True):
            chosen[row] = picked_token
    for row, is_number in enumerate(best.isfinite().tolist()):
        if not is_number:
            chosen[row] = None
    reported = [row for row, draw in enumerate(draws) if draw.logprobs is not None and chosen[row] is not None]
    choices = [Choice(token) for token in chosen]
    if reported:
        targets = [token for row in reported if (token := chosen[row]) is not None]
        tops = [draws[row].logprobs or 0 for row in reported]
        for row, scored in zip(reported, score(logits[reported], targets, tops), strict=True):
            choices[row] = Choice(scored.token, scored)
    return choices


def score(logits: Tensor, targets: Rows[int], tops: Rows[int]) -> list[Scored]:
    """Return the log-probability of `targets[r]` and of the `tops[r]` most likely tokens in each row [R, vocab]."""
    result: list[Scored] = []
    for begin in range(0, len(targets), _SCORE_ROWS):
        part = slice(begin, begin + _SCORE_ROWS)
        logprobs = logits[part].float().log_softmax(-1)  # [r, vocab]
        own = logprobs.gather(1, torch.tensor(targets[part])[:, None])[:, 0].tolist()
        values, ids = logprobs.topk(max(tops[part]), dim=-1)  # [r, most]
        rows = zip(targets[part], own, ids.tolist(), values.tolist(), tops[part], strict=True)
        for target, logprob, top_ids, top_values, top in rows:
            result.append(Scored(target, logprob, list(zip(top_ids[:top], top_values[:top], strict=True))))
    return result


def _elaborate(scores: Tensor, draws: Rows[Draw]) -> list[int]:
    """Choose by penalties, temperature and cuts from `scores` [r, vocab] in float32, which are overwritten."""
    penalised = [row for row, draw in enumerate(draws) if draw.is_penalised]
    if penalised:
        _penalise(scores, penalised, [draws[row] for row in penalised])
    tokens: list[int] = scores.argmax(-1).tolist()
    plain = [row for row, draw in enumerate(draws) if draw.sampling.temperature > 0 and not draw.is_cut]
    cut = [row for row, draw in enumerate(draws) if draw.sampling.temperature > 0 and draw.is_cut]
    for rows, pick in ((plain, _draw), (cut, _draw_cut)):
        if rows:
            heat = torch.tensor([max(draws[row].sampling.temperature, _COLDEST) for row in rows], dtype=torch.float32)
            warm = scores[rows] / heat[:, None]
            for row, token in zip(rows, pick(warm, [draws[row] for row in rows]), strict=True):
                tokens[row] = token
    return tokens


def _penalise(scores: Tensor, rows: Rows[int], draws: Rows[Draw]) -> None:
    """Lower `scores` [r, vocab] in place at `rows`, at tokens that occurred only (formulas: contracts' Sampling)."""
    vocab = scores.shape[1]
    flat = scores.view(-1)
    histories = [np.array(draw.sequence.tokens, dtype=np.int64) for draw in draws]
    seen = [np.unique(history[history >= 0]) for history in histories]  # virtual tokens are no words
    at = torch.from_numpy(np.concatenate([row * vocab + ids for row, ids in zip(rows, seen, strict=True)]))
    repetition = _spread([draw.sampling.repetition_penalty for draw in draws], seen)
    values = flat[at]
    flat[at] = torch.where(values > 0, values / repetition, values * repetition)
    counted = [
        np.unique(history[draw.sequence.prompt_length :], return_counts=True)
        for history, draw in zip(histories, draws, strict=True)
    ]
    generated = [ids for ids, _ in counted]
    at = torch.from_numpy(np.concatenate([row * vocab + ids for row, ids in zip(rows, generated, strict=True)]))
    counts = torch.from_numpy(np.concatenate([count for _, count in counted])).float()
    frequency = _spread([draw.sampling.frequency_penalty for draw in draws], generated)
    presence = _spread([draw.sampling.presence_penalty for draw in draws], generated)
    flat[at] -= frequency * counts + presence


def _spread(values: Rows[float], groups: Rows[np.ndarray]) -> Tensor:
    """Repeat each value for every member of its group."""
    return torch.from_numpy(np.repeat(np.array(values, dtype=np.float32), [len(group) for group in groups]))


def _draw(scores: Tensor, draws: Rows[Draw]) -> list[int]:
    """Draw from the softmax of `scores` [r, vocab] by inverting its distribution function."""
    return _invert(scores.softmax(-1), draws)


def _draw_cut(scores: Tensor, draws: Rows[Draw]) -> list[int]:
    """Draw from the top-k of `scores` [r, vocab], and of these from the least that hold top-p of their probability."""
    vocab = scores.shape[1]
    tokens = [-1] * len(draws)
    everyone = list(range(len(draws)))
    narrow = [row for row in everyone if draws[row].sampling.top_k <= _NARROW < vocab]
    for width, rows in ((_NARROW, narrow), (vocab, everyone)):
        rows = [row for row in rows if tokens[row] < 0]
        if not rows:
            continue
        values, ids = scores[rows].topk(width, dim=-1)  # [r, width], largest first
        limits = [min(draws[row].sampling.top_k or vocab, vocab) for row in rows]
        limit = torch.tensor(limits)[:, None]
        kept = values.masked_fill(torch.arange(width) >= limit, float("-inf"))
        # Without a top-k the probabilities are of the whole vocabulary, of which `width` candidates may be too few.
        whole = scores[rows].logsumexp(-1, keepdim=True)
        total = torch.where(limit < vocab, kept.logsumexp(-1, keepdim=True), whole)
        probabilities = (kept - total).exp()
        before = probabilities.cumsum(-1) - probabilities
        top_p = torch.tensor([draws[row].sampling.top_p for row in rows])[:, None]
        is_enough = ((before + probabilities)[:, -1] >= top_p[:, 0]).tolist()
        probabilities = probabilities.masked_fill((before >= top_p) & (torch.arange(width) > 0), 0)
        places = _invert(probabilities, [draws[row] for row in rows])
        for i, row in enumerate(rows):
            if is_enough[i] or limits[i] <= width:
                tokens[row] = int(ids[i, places[i]])
    return tokens


def _invert(probabilities: Tensor, draws: Rows[Draw]) -> list[int]:
    """Return the column of each row [r, n] at which its cumulative weight passes the row's next random number."""
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    numbers = torch.tensor(
        [[uniform(draw.seed, draw.sequence.completion_length)] for draw in draws], dtype=torch.float64
    )
    places = torch.searchsorted(cumulative, numbers * cumulative[:, -1:], right=True)  # [r, 1]
    columns: list[int] = places[:, 0].clamp(max=probabilities.shape[1] - 1).tolist()
    return columns

"""The loss of a frozen model over prompts and targets, and its gradient at the prompts' embeddings.

Any number of sequences go through the model as one row of tokens, without padding, and each micro-batch's gradient is
added to the batch's. No weight ever requires a gradient. Must not know text, requests or threads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from hunmin_modeling.checkpoint import Checkpoint

# Up to here two products and a softmax take half the time of SDPA in bfloat16, and what they keep, the square of the
# length per head and layer, is bearable. In float32 SDPA is as fast.
_LONGEST_PRODUCT = 512


@dataclass(frozen=True)
class Example:
    """A prompt, in which -1 - k stands for row k of the soft prompt, what should follow it, and its loss's weight."""

    prompt: Sequence[int]
    target: Sequence[int]
    weight: float = 1.0

    @property
    def length(self) -> int:
        """How many positions go through the model: the last target token is only predicted."""
        return len(self.prompt) + len(self.target) - 1


@dataclass(frozen=True)
class Wanted:
    """What a batch is to bring beside its loss. `positions` of the prompts: those whose gradients are summed up."""

    divisor: float = 1.0
    saliency: bool = False
    positions: Sequence[int] = ()


@dataclass
class ExampleOutcome:
    """Natural logarithms of the target tokens' probabilities, and gradient · embedding of the prompt's tokens."""

    logprobs: list[float] = field(default_factory=list)
    saliency: list[float] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """The mean over the target tokens, in nats."""
        return -sum(self.logprobs) / len(self.logprobs)


class DenseBatch:
    """Sequences side by side in one row of tokens, each attending to itself; differentiable, and without a KV pool."""

    def __init__(self, lengths: Sequence[int], *, dtype: torch.dtype, pause: Callable[[], None]) -> None:
        """Lay out sequences of these lengths; `pause` is called once a layer, forwards and backwards."""
        self.positions = torch.cat([torch.arange(length) for length in lengths])  # [T]
        self._lengths = list(lengths)
        self._pause = pause
        small = [dtype == torch.bfloat16 and length <= _LONGEST_PRODUCT for length in lengths]
        masks = {n: torch.full((n, n), -torch.inf, dtype=dtype).triu(1) for n in {*lengths}} if any(small) else {}
        self._masks = [masks[n] if is_small else None for n, is_small in zip(lengths, small, strict=True)]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Return what each query attends to in its own sequence, as `AttentionBatch` says."""
        self._pause()
        parts = (torch.split(part, self._lengths, dim=2) for part in (query, key, value))
        attended = [_attend(q, k, v, scaling, mask) for q, k, v, mask in zip(*parts, self._masks, strict=True)]
        result = torch.cat([one.transpose(1, 2) for one in attended], dim=1)
        if result.requires_grad:
            result.register_hook(self._pause_backwards)  # type: ignore[no-untyped-call]
        return result

    def _pause_backwards(self, gradient: Tensor) -> None:
        self._pause()


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
    """Attend within one sequence: `query` [1, heads, n, head_dim], as many back; `mask` [n, n] in place of SDPA."""
    heads, groups = query.shape[1], query.shape[1] // key.shape[1]
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=groups != 1)
    if groups != 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = torch.baddbmm(mask.expand(heads, *mask.shape), query[0], key[0].transpose(1, 2), alpha=scaling)
    return (scores.softmax(-1) @ value[0])[None]


class Gradients:
    """The gradients of one batch: `run` computes them, and everything else tells what has been computed so far."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        examples: Sequence[Example],
        rows: Tensor | None,
        wanted: Wanted,
        *,
        max_tokens: int,
    ) -> None:
        """Take a batch; its loss is the sum of weight * cross-entropy over the target tokens, over `wanted.divisor`.

        `rows` [n_virtual, d_model] is the soft prompt. A micro-batch has at most `max_tokens` positions or one example.
        """
        self.checkpoint = checkpoint
        self.examples = examples
        self.outcomes = [ExampleOutcome() for _ in examples]
        self.loss = 0.0
        self.tokens = 0  # positions that the backward pass went through
        self.prompt_tokens = 0  # those of them that are prompts
        width = checkpoint.config.hidden_size
        # float32 whatever the model's type: sums over many examples.
        self.rows = torch.zeros(0 if rows is None else len(rows), width)  # [n_virtual, d_model], the gradient
        self.positions = torch.zeros(len(wanted.positions), width)  # [positions, d_model], the gradient
        self._soft_prompt = rows
        self._wanted = wanted
        self._max_tokens = max_tokens

    @property
    def micro_batches(self) -> Iterator[list[int]]:
        """The numbers of the examples that go through the model together."""
        batch: list[int] = []
        tokens = 0
        for number, example in enumerate(self.examples):
            if batch and tokens + example.length > self._max_tokens:
                yield batch
                batch, tokens = [], 0
            batch.append(number)
            tokens += example.length
        yield batch

    def run(self, pause: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Compute a micro-batch at each step. `pause` is called once a layer and may wait, or raise to end the run."""
        for batch in self.micro_batches:
            self._run(batch, pause)
            yield

    def candidates(self, top_k: int, *, vocab_size: int) -> tuple[Tensor, Tensor]:
        """Return scores and ids [positions, top_k] of the tokens whose embedding e makes -e·g largest (AutoPrompt).

        Shin et al. 2020, arXiv 2010.15980, section 2.2; g is the gradient at a position, summed over the batch. Tokens
        from `vocab_size` on, with which models pad their vocabulary, are none.
        """
        table = self.checkpoint.embedding[:vocab_size]
        with torch.no_grad():
            scores = torch.cat([-self.positions @ part.float().T for part in torch.split(table, 8192)], dim=1)
            best = scores.topk(top_k)
        return best.values, best.indices

    def _run(self, numbers: list[int], pause: Callable[[], None]) -> None:
        examples = [self.examples[number] for number in numbers]
        batch = DenseBatch(
            [example.length for example in examples], dtype=self.checkpoint.activation_dtype, pause=pause
        )
        ids = torch.tensor([token for example in examples for token in [*example.prompt, *example.target[:-1]]])  # [T]
        begins = [0, *accumulate(example.length for example in examples)]
        sources = [
            begin + len(example.prompt) - 1 + place
            for begin, example in zip(begins, examples, strict=False)
            for place in range(len(example.target))
        ]
        embeddings = self._embed(ids).requires_grad_()
        logits, _ = self.checkpoint.forward(
            embeddings, batch.positions, batch, rows=torch.tensor(sources)
        )  # [R, vocab]
        losses = F.cross_entropy(
            logits.float(), torch.tensor([token for example in examples for token in example.target]), reduction="none"
        )  # [R]
        weights = torch.tensor([example.weight for example in examples for _ in example.target])
        loss = (losses * weights).sum() / self._wanted.divisor
        (gradient,) = torch.autograd.grad(loss, embeddings)  # [T, d_model]
        self._take(numbers, begins, losses.detach(), ids, embeddings.detach(), gradient)
        self.loss += loss.item()
        self.tokens += len(ids)
        self.prompt_tokens += sum(len(example.prompt) for example in examples)

    def _embed(self, ids: Tensor) -> Tensor:
        """Return what stands at each place [T, d_model]."""
        with torch.no_grad():
            embeddings = self.checkpoint.embed(ids.clamp(min=0))
            if self._soft_prompt is not None:
                virtual = ids < 0
                embeddings[virtual] = self._soft_prompt[-1 - ids[virtual]].to(embeddings.dtype)
        return embeddings

    def _take(
        self,
        numbers: list[int],
        begins: list[int],
        losses: Tensor,
        ids: Tensor,
        embeddings: Tensor,
        gradient: Tensor,
    ) -> None:
        virtual = ids < 0
        self.rows.index_add_(0, -1 - ids[virtual], gradient[virtual].float())
        lengths = [len(self.examples[number].target) for number in numbers]
        for number, begin, part in zip(numbers, begins, torch.split(losses, lengths), strict=False):
            outcome, end = self.outcomes[number], begin + len(self.examples[number].prompt)
            outcome.logprobs = (-part).tolist()
            if self._wanted.saliency:
                outcome.saliency = (gradient[begin:end].float() * embeddings[begin:end].float()).sum(-1).tolist()
            if self._wanted.positions:
                self.positions += gradient[torch.tensor(self._wanted.positions) + begin].float()

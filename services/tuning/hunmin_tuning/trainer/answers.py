"""What a frozen model answers, with or without a soft prompt: losses, the likeliest label of each row, greedy texts."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from hunmin_modeling.checkpoint import Checkpoint
from hunmin_modeling.gradient import Example
from hunmin_modeling.greedy import greedy_texts
from hunmin_modeling.shared_prefix import PackedPrompts, target_logits
from hunmin_text.tokenizer import Tokenizer
from torch import Tensor

from hunmin_tuning.trainer.preparation import Question

_POSITIONS = 2048  # at most, of a pass with more than one row
_TEXTS = 32  # that grow together

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Answer:
    """`nats` is the loss summed over the answer's `tokens`; `given` is the label or the text, if one was asked for."""

    nats: float
    tokens: int
    given: str | None = None


class Answerer:
    """A model with the rows [n_virtual, d_model] of a soft prompt, or without."""

    def __init__(
        self, checkpoint: Checkpoint, rows: Tensor | None, *, choices: dict[str, list[int]], pause: Callable[[], None]
    ) -> None:
        """`choices` are the ids of each label; `pause` is called before each pass and may raise to end the work."""
        self._checkpoint = checkpoint
        self._rows = rows
        self._choices = choices
        self._pause = pause

    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """Return the loss of each, and the likeliest label where there are choices."""
        if self._choices:
            return [
                Answer(-scores[question.reference], len(question.answer), max(scores, key=scores.__getitem__))
                for question, scores in zip(questions, self._scores([each.prompt for each in questions]), strict=True)
            ]
        examples = [Example(question.prompt, question.answer) for question in questions]
        return [Answer(-sum(found), len(found)) for found in self._logprobs(examples)]

    def with_texts(
        self, questions: Sequence[Question], answers: Sequence[Answer], tokenizer: Tokenizer, *, max_tokens: int
    ) -> list[Answer]:
        """Return the answers with the greedy text of each, up to `max_tokens` or the end of the context."""
        texts = [""] * len(questions)
        order = sorted(range(len(questions)), key=lambda number: len(questions[number].prompt))
        ends = {*self._checkpoint.end_ids, tokenizer.eos_id}
        for start in range(0, len(order), _TEXTS):
            self._pause()
            numbers = order[start : start + _TEXTS]
            prompts = [questions[number].prompt for number in numbers]
            room = min(max_tokens, self._checkpoint.context_length - len(prompts[-1]))
            found = greedy_texts(self._checkpoint, prompts, self._rows, max_tokens=room, end_ids=ends)
            for number, ids in zip(numbers, found, strict=True):
                texts[number] = tokenizer.decode(ids)
        return [replace(answer, given=text) for answer, text in zip(answers, texts, strict=True)]

    def _scores(self, prompts: Sequence[list[int]]) -> list[dict[str, float]]:
        """Return the log-likelihood of each choice after each prompt."""
        if all(len(ids) == 1 for ids in self._choices.values()):
            firsts = torch.tensor([ids[0] for ids in self._choices.values()], device=self._checkpoint.device)
            examples = [Example(prompt, [0]) for prompt in prompts]  # a target, so that one token is predicted
            return [
                dict(zip(self._choices, each[0].tolist(), strict=True))
                for each in self._passes(examples, lambda logprobs, _: logprobs[:, firsts])
            ]
        examples = [Example(prompt, ids) for prompt in prompts for ids in self._choices.values()]
        found = iter(self._logprobs(examples))
        return [{label: math.fsum(next(found)) for label in self._choices} for _ in prompts]

    def _logprobs(self, examples: Sequence[Example]) -> list[list[float]]:
        """Return the logarithms of the target tokens' probabilities, of each example."""
        parts = self._passes(examples, lambda logprobs, targets: logprobs.gather(1, targets[:, None])[:, 0])
        return [part.tolist() for part in parts]

    @torch.no_grad()
    def _passes(self, examples: Sequence[Example], chosen: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        """Return what `chosen` takes of the log-probabilities [R, vocab] and targets [R], split up by example."""
        found: list[Tensor] = [torch.empty(0)] * len(examples)
        for numbers in _passes([example.length for example in examples]):
            self._pause()
            batch = [examples[number] for number in numbers]
            packed = PackedPrompts(batch, device=self._checkpoint.device)
            logits = target_logits(self._checkpoint, packed, self._rows)
            taken = chosen(F.log_softmax(logits.float(), -1), packed.targets).cpu()
            parts = torch.split(taken, [len(example.target) for example in batch])
            for number, part in zip(numbers, parts, strict=True):
                found[number] = part
        return found


def _passes(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield numbers of sequences that go together, those of like length side by side."""
    batch: list[int] = []
    positions = 0
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and positions + lengths[number] > _POSITIONS:
            yield batch
            batch, positions = [], 0
        batch.append(number)
        positions += lengths[number]
    if batch:
        yield batch

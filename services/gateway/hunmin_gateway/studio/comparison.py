"""Soft prompts beside each other: what they were made of, and how their jobs judged them. Pure: no I/O."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hunmin_contracts.soft_prompts import (
    ComparedSoftPrompt,
    EvaluationDifference,
    SoftPromptComparison,
    SoftPromptInfo,
    SoftPromptOrigin,
)
from hunmin_contracts.tuning import Evaluation

# What tells of the version itself, or of the outcome, and not of what went into it.
_OWN: Mapping[str, Any] = {
    "id": True,
    "name": True,
    "version": True,
    "digest": True,
    "size_bytes": True,
    "is_promoted": True,
    "created_at": True,
    "origin": {"job_id": True, "result": True},
}
_SCORES = ("accuracy", "macro_f1", "exact_match", "bleu")


def compare(soft_prompts: Sequence[SoftPromptInfo]) -> SoftPromptComparison:
    """Put each beside the first."""
    return SoftPromptComparison(data=[_beside(soft_prompts[0], one) for one in soft_prompts])


def _beside(first: SoftPromptInfo, other: SoftPromptInfo) -> ComparedSoftPrompt:
    is_same_test: bool | None = None
    difference: EvaluationDifference | None = None
    if first.origin is not None and other.origin is not None:
        is_same_test = first.origin.test_digest == other.origin.test_digest
        if is_same_test:
            is_same_token = first.manifest.tokenizer_digest == other.manifest.tokenizer_digest
            difference = _difference(first.origin, other.origin, with_loss=is_same_token)
    return ComparedSoftPrompt(
        soft_prompt=other, differs_in=_differing(first, other), is_same_test=is_same_test, difference=difference
    )


def _difference(first: SoftPromptOrigin, other: SoftPromptOrigin, *, with_loss: bool) -> EvaluationDifference:
    before, after = first.result.tuned, other.result.tuned
    return EvaluationDifference(
        loss=after.loss - before.loss if with_loss else None,
        **{score: _less(after, before, score) for score in _SCORES},
    )


def _less(after: Evaluation, before: Evaluation, score: str) -> float | None:
    more, less = getattr(after, score), getattr(before, score)
    return None if more is None or less is None else more - less


def _differing(first: SoftPromptInfo, other: SoftPromptInfo) -> list[str]:
    values, others = (dict(_leaves(info.model_dump(mode="json", exclude=_OWN))) for info in (first, other))
    return [path for path in values | others if values.get(path) != others.get(path)]


def _leaves(value: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, part in value.items():
        if isinstance(part, dict):
            yield from _leaves(part, f"{path}{key}.")
        else:
            yield f"{path}{key}", part

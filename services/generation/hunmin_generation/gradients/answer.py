"""From a computed batch to the answer. Pure computing, meant for a thread."""

import base64
import math

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.gradients import (
    Candidate,
    ExampleGradient,
    GradientRequest,
    GradientResponse,
    GradientUsage,
    SalientToken,
    TargetToken,
)
from hunmin_modeling.gradient import Example, ExampleOutcome, Gradients
from hunmin_text.tokenizer import Tokenizer
from safetensors.torch import save

from hunmin_generation.gradients.models import GradientModel

TENSOR = "gradient"


def write_answer(request: GradientRequest, batch: Gradients, model: GradientModel) -> GradientResponse:
    """Return what `request` asked for of a batch that has run; `invalid_request` if numbers have run over."""
    if not (math.isfinite(batch.loss) and batch.rows.isfinite().all() and batch.positions.isfinite().all()):
        raise HunminError(
            ErrorCode.INVALID_REQUEST,
            "The loss or its gradient is not finite: the soft prompt's numbers or the weights are too large. "
            "Lower the learning rate.",
            param="soft_prompt",
        )
    has_rows = len(batch.rows) > 0
    is_file, is_json = (has_rows and request.gradient_format == form for form in ("safetensors", "json"))
    return GradientResponse(
        loss=batch.loss,
        examples=[
            _example(example, outcome, model.tokenizer, with_saliency=request.saliency)
            for example, outcome in zip(batch.examples, batch.outcomes, strict=True)
        ],
        gradient=base64.b64encode(save({TENSOR: batch.rows})).decode() if is_file else None,
        gradient_rows=batch.rows.tolist() if is_json else None,
        candidates=_candidates(batch, model, request.candidates.top_k) if request.candidates is not None else None,
        usage=GradientUsage(prompt_tokens=batch.prompt_tokens, backward_tokens=batch.tokens),
    )


def _example(
    example: Example, outcome: ExampleOutcome, tokenizer: Tokenizer, *, with_saliency: bool
) -> ExampleGradient:
    target = [
        TargetToken(id=token, text=tokenizer.token_text(token), logprob=logprob)
        for token, logprob in zip(example.target, outcome.logprobs, strict=True)
    ]
    if not with_saliency:
        return ExampleGradient(loss=outcome.loss, target=target)
    saliency = [
        SalientToken(id=token, text=tokenizer.token_text(token) if token >= 0 else None, saliency=value)
        for token, value in zip(example.prompt, outcome.saliency, strict=True)
    ]
    return ExampleGradient(loss=outcome.loss, target=target, saliency=saliency)


def _candidates(batch: Gradients, model: GradientModel, top_k: int) -> list[list[Candidate]]:
    scores, ids = batch.candidates(min(top_k, model.vocab_size), vocab_size=model.vocab_size)
    text = model.tokenizer.token_text
    return [
        [Candidate(id=token, text=text(token), score=score) for token, score in zip(*best, strict=True)]
        for best in zip(ids.tolist(), scores.tolist(), strict=True)
    ]

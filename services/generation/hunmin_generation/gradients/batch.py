"""From a request to a batch of token ids that is known to fit. Pure computing, meant for a thread."""

from collections.abc import Sequence

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.gradients import GradientExample, GradientRequest
from hunmin_contracts.soft_prompts import Manifest
from hunmin_modeling.gradient import Example, Gradients, Wanted
from hunmin_modeling.soft_prompt import read_file
from hunmin_text.prompt_template import encode_template, resolve_slots, template_length
from torch import Tensor

from hunmin_generation.gradients.models import GradientModel
from hunmin_generation.soft_prompts.library import HeldSoftPrompt, check_digests

MAX_JSON_NUMBERS = 2**16  # of a gradient that is sent as JSON, where a number takes 20 bytes


def read_batch(
    request: GradientRequest, model: GradientModel, sent: memoryview | None, named: HeldSoftPrompt | None
) -> Gradients:
    """Return what is to be computed; a HunminError names the parameter that is wrong, or the lengths that are.

    `sent` is the file of a soft prompt that came with the request, `named` the one that its `model` names.
    """
    rows, manifest = _soft_prompt(model, sent, named)
    _check_characters(request, manifest.template, model.limits.max_characters)
    n_virtual = 0 if rows is None else len(rows)
    if request.gradient_format == "json" and n_virtual * model.info.d_model > MAX_JSON_NUMBERS:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            f"The gradient has {n_virtual} x {model.info.d_model} numbers; as JSON at most {MAX_JSON_NUMBERS:,} are "
            "sent. Ask for safetensors.",
            param="gradient_format",
        )
    reader = _Reader(model, n_virtual, template=manifest.template, slots=request.slots or manifest.slots)
    examples = [reader.read(example, f"examples.{number}") for number, example in enumerate(request.examples)]
    positions = request.candidates.positions if request.candidates is not None else []
    _check_positions(positions, examples)
    tokens = sum(len(example.target) for example in examples)
    wanted = Wanted(
        divisor=tokens if request.reduction == "mean" else 1, saliency=request.saliency, positions=positions
    )
    return Gradients(model.checkpoint, examples, rows, wanted, max_tokens=model.limits.max_tokens)


def _check_characters(request: GradientRequest, template: str | None, limit: int) -> None:
    """Refuse what is too much to encode: a value counts wherever the template has its field."""
    characters = sum(
        template_length(
            template if example.template is None else example.template,
            {name: len(value) for name, value in example.fields.items()},
        )
        + (len(example.target) if isinstance(example.target, str) else 0)
        for example in request.examples
    )
    if characters > limit:
        raise HunminError(
            ErrorCode.TOO_LARGE,
            f"The examples have {characters:,} characters; at most {limit:,} are taken. Send them in several requests.",
            param="examples",
        )


def _soft_prompt(
    model: GradientModel, sent: memoryview | None, named: HeldSoftPrompt | None
) -> tuple[Tensor | None, Manifest]:
    """Return the rows that are sent, else those named, and the manifest of what is named, else of what is sent."""
    if sent is None:
        return (None, Manifest()) if named is None else (named.rows.rows, named.info.manifest)
    try:
        found = read_file(sent, d_model=model.info.d_model)
        check_digests(found.manifest, model.info)
    except HunminError as error:
        raise HunminError(error.code, error.message, **error.details | {"param": "soft_prompt"}) from None
    return found.rows, found.manifest if named is None else named.info.manifest


class _Reader:
    """Reads the examples of a batch."""

    def __init__(
        self, model: GradientModel, n_virtual: int, *, template: str | None, slots: Sequence[int] | None
    ) -> None:
        self._tokenizer = model.tokenizer
        self._vocab_size = model.vocab_size
        self._max_length = model.max_length
        self._n_virtual = n_virtual
        self._template = template
        self._slots = slots

    def read(self, example: GradientExample, place: str) -> Example:
        """Return the ids of one; `place` is its path in the request."""
        prompt, target = self._prompt(example, place), self._target(example, place)
        if not prompt:
            raise _refused(place, "the prompt is empty: give at least one token for the target to follow", "tokens")
        if len(prompt) + len(target) > self._max_length:
            raise HunminError(
                ErrorCode.PROMPT_TOO_LONG,
                f"{place}: the prompt has {len(prompt)} tokens and the target {len(target)}; at most "
                f"{self._max_length} are taken together. Shorten them.",
                param=place,
                prompt_tokens=len(prompt),
                target_tokens=len(target),
                max_tokens=self._max_length,
            )
        return Example(prompt, target, example.weight)

    def _prompt(self, example: GradientExample, place: str) -> list[int]:
        if example.tokens is not None:
            self._check_ids(example.tokens, place, "tokens")
            return example.tokens
        template = self._template if example.template is None else example.template
        try:
            slots = resolve_slots(template, self._slots, self._n_virtual)
            return encode_template(template, example.fields, slots, self._tokenizer)
        except HunminError as error:
            param = error.details.get("param", "fields")
            details = error.details | {"param": "slots" if param == "slots" else f"{place}.{param}"}
            raise HunminError(error.code, f"{place}: {error.message}", **details) from None

    def _target(self, example: GradientExample, place: str) -> list[int]:
        if not isinstance(example.target, str):
            self._check_ids(example.target, place, "target")
            return example.target
        target = self._tokenizer.encode(example.target)
        if not target:
            raise _refused(place, "the target has no tokens", "target")
        return target

    def _check_ids(self, ids: Sequence[int], place: str, param: str) -> None:
        foreign = next((token for token in ids if not -self._n_virtual <= token < self._vocab_size), None)
        if foreign is None:
            return
        if foreign >= 0:
            reason = f"token id {foreign} is not in the model's vocabulary of {self._vocab_size} tokens"
        else:
            reason = f"{foreign} stands for row {-1 - foreign}, and the soft prompt has {self._n_virtual} rows"
        raise _refused(place, reason, param)


def _check_positions(positions: Sequence[int], examples: Sequence[Example]) -> None:
    shortest = min(range(len(examples)), key=lambda number: len(examples[number].prompt))
    length = len(examples[shortest].prompt)
    for number, position in enumerate(positions):
        if position >= length:
            raise _refused(
                "candidates",
                f"position {position} lies behind the prompt of examples.{shortest}, which has {length} tokens",
                f"positions.{number}",
            )


def _refused(place: str, reason: str, param: str) -> HunminError:
    return HunminError(ErrorCode.INVALID_PARAMETER, f"Parameter {place}: {reason}.", param=f"{place}.{param}")

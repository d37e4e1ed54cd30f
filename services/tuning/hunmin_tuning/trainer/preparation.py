"""From a job's rows to what the model is asked: all are encoded before the first step, so that a fault ends it early.

It knows no torch and no model, only a tokenizer and how long a context may be.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.tuning import Hyperparameters, SplitName, TuningTemplate
from hunmin_text.tokenizer import Tokenizer
from hunmin_text.tuning_example import (
    Row,
    RowEncoder,
    TuningExample,
    answer_of,
    draw_examples,
    label_of,
    shown_examples,
)

_FEW = 8  # examples in the prompt of the base model, where they fit


@dataclass(frozen=True)
class Question:
    """A prompt, the answer's ids, and the answer itself: the label of a classification, else the text."""

    prompt: list[int]
    answer: list[int]
    reference: str


class Material:
    """What a job trains with and is judged by. `served` is the template of the soft prompt's manifest."""

    def __init__(
        self,
        template: TuningTemplate,
        parameters: Hyperparameters,
        rows: dict[SplitName, list[dict[str, str]]],
        tokenizer: Tokenizer,
        *,
        context_length: int,
    ) -> None:
        """Encode every row; a HunminError says which template or row is at fault."""
        self._template, self._parameters, self._rows = template, parameters, rows
        self._tokenizer, self._context = tokenizer, context_length
        shown = shown_examples(template, rows["train"], tokenizer, context_length=context_length, seed=self._seed)
        tuned = self._encoder(parameters.slots, [rows["train"][number] for number in shown])
        # An example's answer stands in the prompt: nothing is learned from asking for it.
        learned = [row for number, row in enumerate(rows["train"]) if number not in {*shown}]
        if not learned:
            raise HunminError(
                ErrorCode.INVALID_PARAMETER, "Every training row is an example. Show fewer.", param="examples"
            )
        self.served = tuned.served
        self.choices = tuned.choices
        self.train = [tuned.encode(row) for row in learned]
        self.validation = self._questions("validation", tuned.encode)
        self.zero_shot = self._questions("test", self._encoder((), ()).encode)
        self.few_shot = self._few_shot()
        self.tuned = self._questions("test", tuned.encode)

    def _few_shot(self) -> list[Question]:
        """Return the test part with examples before each prompt: as many of the same `_FEW` as fit with it."""
        longest = max(len(question.prompt) + len(question.answer) for question in self.zero_shot)
        train = self._rows["train"]
        drawn = draw_examples(
            self._template,
            train,
            self._tokenizer,
            count=_FEW,
            budget=max(self._context - longest, self._context // 2),
            seed=self._seed,
        )
        encoders = [self._encoder((), [train[number] for number in drawn[:n]]) for n in range(len(drawn), -1, -1)]
        return self._questions("test", lambda row: _first_that_fits(encoders, row))

    @property
    def _seed(self) -> int:
        return self._parameters.seed

    def _encoder(self, slots: Sequence[int], examples: Sequence[Row]) -> RowEncoder:
        return RowEncoder(self._template, self._tokenizer, slots=slots, max_tokens=self._context, examples=examples)

    def _questions(self, split: SplitName, encode: Callable[[Row], TuningExample]) -> list[Question]:
        reference = answer_of if self._template.verbalizers is None else label_of
        questions = []
        for row in self._rows[split]:
            example = encode(row)
            questions.append(Question(example.prompt, example.answer, reference(self._template, row)))
        return questions


def _first_that_fits(encoders: Sequence[RowEncoder], row: Row) -> TuningExample:
    for encoder in encoders[:-1]:
        try:
            return encoder.encode(row)
        except HunminError as error:
            if error.code != ErrorCode.PROMPT_TOO_LONG:
                raise
    return encoders[-1].encode(row)

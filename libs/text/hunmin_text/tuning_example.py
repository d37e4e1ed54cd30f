"""Rows of a labelled file as prompts and answers in token ids, by a tuning template. It knows no model and no file.

A prompt's ids are those that serving makes of `RowEncoder.served` and the same fields, an answer's those of a
continuation that is scored: what is trained is what is served.
"""

import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.tuning import TuningTemplate

from hunmin_text.prompt_template import (
    Field,
    PromptTemplate,
    Slot,
    encode_template,
    parse_template,
    resolve_slots,
)
from hunmin_text.tokenizer import Tokenizer

MAX_SERVED = 20_000  # characters, of the template in a soft prompt's manifest
_SLOT_MARK = "<|VIRTUAL_PROMPT_"
_DRAWN_FROM = 64  # rows that are looked at for each example

Row = Mapping[str, str]
TokenKind = Literal["text", "field", "virtual", "answer"]


@dataclass(frozen=True, slots=True)
class TuningExample:
    """`prompt` has -1 - k for row k of the soft prompt; the loss is that of `answer`."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True, slots=True)
class RenderedToken:
    """A token as people read it; `text` of a row of the soft prompt is empty, and its `id` is -1 - k."""

    id: int
    text: str
    kind: TokenKind


@dataclass(frozen=True, slots=True)
class RenderedExample:
    """Prompt and answer as text, without the rows of the soft prompt, and as tokens."""

    text: str
    tokens: list[RenderedToken]


def example_fields(template: TuningTemplate) -> tuple[str, ...]:
    """Return the names of the fields that a row must have, each once, in order; the template is checked.

    Raises `invalid_parameter`, which says what is wrong with the template.
    """
    prompt, answer = parse_template(template.prompt), parse_template(template.answer)
    if not prompt.fields:
        raise _refused("The prompt has no {field}: every row would ask the same. Put one into it.", "prompt")
    if not answer.fields:
        raise _refused("The answer has no {field}: every row would teach the same. Put one into it.", "answer")
    if answer.slots:
        raise _refused("The answer has a slot, but rows of a soft prompt stand in the prompt alone.", "answer")
    if template.verbalizers is not None:
        if answer.parts != (Field(answer.fields[0]),):
            raise _refused(
                "With verbalizers the answer is one {field} and nothing else: they hold the text around it.", "answer"
            )
        if "" in template.verbalizers.values() or len({*template.verbalizers.values()}) < len(template.verbalizers):
            raise _refused(
                "Two verbalizers are the same text, or one is empty: give each label its own.", "verbalizers"
            )
    if template.truncated is not None and template.truncated not in prompt.fields:
        raise _refused(f"The prompt has no field {template.truncated[:60]!r} that could be cut.", "truncated")
    return tuple(dict.fromkeys(prompt.fields + answer.fields))


def label_of(template: TuningTemplate, row: Row) -> str:
    """Return the label of a row of a template with verbalizers; `invalid_request` if it has none of its own."""
    (field,) = parse_template(template.answer).fields
    label = row.get(field, "")
    if label not in (template.verbalizers or {}):
        raise HunminError(
            ErrorCode.INVALID_REQUEST,
            f"The label {label[:60]!r} has no verbalizer. Add it to `verbalizers`, or leave such rows out.",
        )
    return label


def answer_of(template: TuningTemplate, row: Row) -> str:
    """Return the text that should follow a row's prompt."""
    if template.verbalizers is not None:
        return template.verbalizers[label_of(template, row)]
    parts = parse_template(template.answer).parts
    return "".join(_value(row, part.name) if isinstance(part, Field) else str(part) for part in parts)


class RowEncoder:
    """Rows to ids, by one template. `served` is the template that serving is given: the examples are text in it."""

    def __init__(
        self,
        template: TuningTemplate,
        tokenizer: Tokenizer,
        *,
        slots: Sequence[int],
        max_tokens: int,
        examples: Sequence[Row] = (),
        ends: bool | None = None,
    ) -> None:
        """Take a template whose slot i takes `slots[i]` rows; no `slots`: they are left out, as for the model alone.

        `max_tokens`: prompt and answer together. `examples`: the rows that come before each prompt, with their answers.
        `ends`: an answer is learned with the token that ends a text; by default one without verbalizers is.
        """
        example_fields(template)
        parts = parse_template(template.prompt).parts
        if not slots:
            parts = tuple(part for part in parts if not isinstance(part, Slot))
        shown = "".join(example_text(template, example) for example in examples)
        if _SLOT_MARK in shown:
            raise _refused(f"An example's text has {_SLOT_MARK}, which would be read as a slot.", "examples")
        self.served = spell_template(PromptTemplate((shown, *parts) if shown else parts))
        if len(self.served) > MAX_SERVED:
            raise _refused(
                f"With its examples the template has {len(self.served):,} characters; at most {MAX_SERVED:,} can be "
                "served. Show fewer examples.",
                "examples",
            )
        resolve_slots(self.served, list(slots) or None, sum(slots))
        self._template = template
        self._tokenizer = tokenizer
        self._slots = list(slots)
        self._max_tokens = max_tokens
        self._fields = parse_template(self.served).fields
        self._ends = template.verbalizers is None if ends is None else ends
        #: What each label's prompt may be followed by.
        self.choices = {label: tokenizer.encode(text) for label, text in (template.verbalizers or {}).items()}
        if any(not ids for ids in self.choices.values()):
            raise _refused("A verbalizer has no token at all. Give each label a text.", "verbalizers")

    def encode(self, row: Row) -> TuningExample:
        """Return a row's prompt and answer; `prompt_too_long` if they do not fit, even with the one field cut."""
        answer = self._answer(row)
        return TuningExample(self._prompt(self._cut(row, answer)), answer)

    def served_fields(self, row: Row) -> dict[str, str]:
        """Return the fields that serving is to be sent with `served`: those of the prompt, the one cut if need be."""
        return self._cut(row, self._answer(row))

    def render(self, row: Row) -> RenderedExample:
        """Return a row as people look at it: a token that joins text and a field is of the kind it begins with."""
        answer = self._answer(row)
        fields = self._cut(row, answer)
        tokens = [self._rendered(token, "text") for token in self._tokenizer.prefix_ids]
        text, piece, kinds = "", "", list[TokenKind]()
        starts = [sum(self._slots[:number]) for number in range(len(self._slots))]
        for part in (*parse_template(self.served).parts, None):
            if isinstance(part, str | Field):
                added = fields[part.name] if isinstance(part, Field) else part
                piece += added
                kinds += ["field" if isinstance(part, Field) else "text"] * len(added)
                continue
            encoding = self._tokenizer.encode_with_offsets(piece)
            tokens += [
                self._rendered(token, kinds[start])
                for token, (start, _) in zip(encoding.ids, encoding.offsets, strict=True)
            ]
            if part is not None:
                first = starts[part.number]
                tokens += [RenderedToken(-1 - k, "", "virtual") for k in range(first, first + self._slots[part.number])]
            text, piece, kinds = text + piece, "", []
        tokens += [self._rendered(token, "answer") for token in answer]
        return RenderedExample(text + answer_of(self._template, row), tokens)

    def _rendered(self, token: int, kind: TokenKind) -> RenderedToken:
        return RenderedToken(token, self._tokenizer.token_text(token), kind)

    def _answer(self, row: Row) -> list[int]:
        ids = self._tokenizer.encode(answer_of(self._template, row))
        if not ids:
            raise HunminError(ErrorCode.INVALID_REQUEST, "The row's answer is empty. Fill it in, or leave the row out.")
        return [*ids, self._tokenizer.eos_id] if self._ends else ids

    def _prompt(self, fields: Mapping[str, str]) -> list[int]:
        return encode_template(self.served, dict(fields), self._slots, self._tokenizer)

    def _cut(self, row: Row, answer: Sequence[int]) -> dict[str, str]:
        """Return the prompt's fields; of the one that may be cut as many whole characters of whole tokens as fit."""
        fields = {name: _value(row, name) for name in self._fields}
        room = self._max_tokens - max(map(len, (answer, *self.choices.values())))
        length = len(self._prompt(fields))
        if length == 0:
            raise HunminError(ErrorCode.INVALID_REQUEST, "The row's prompt is empty: an answer follows some text.")
        if length <= room:
            return fields
        name = self._template.truncated
        if name is not None:
            value = fields[name]
            # A token begins at the first character that it covers, if only in part: what is before it is whole.
            ends = [start for start, _ in self._tokenizer.encode_with_offsets(value).offsets]
            kept = bisect_right(ends, room, key=lambda end: len(self._prompt({**fields, name: value[:end]})))
            for end in reversed(ends[:kept]):  # the length may fall by a token where a longer text joins better
                shorter = {**fields, name: value[:end]}
                if 0 < len(self._prompt(shorter)) <= room:
                    return shorter
        raise HunminError(
            ErrorCode.PROMPT_TOO_LONG,
            f"The prompt has {length:,} tokens, and with its answer there is room for {max(room, 0):,}. "
            + (
                "Name the field that may be cut in `truncated`, or show fewer examples."
                if name is None
                else f"Even without {name[:60]!r}, the field that may be cut, it is too long: shorten the other text."
            ),
        )


def example_text(template: TuningTemplate, row: Row) -> str:
    """Return a row as an example in the prompt of others: without slots, with its answer, and the separator."""
    parts = parse_template(template.prompt).parts
    prompt = "".join(
        _value(row, part.name) if isinstance(part, Field) else part for part in parts if not isinstance(part, Slot)
    )
    return prompt + answer_of(template, row) + template.separator


def draw_examples(
    template: TuningTemplate, rows: Sequence[Row], tokenizer: Tokenizer, *, count: int, budget: int, seed: int
) -> list[int]:
    """Return which of `rows` are shown as examples: at most `count`, of at most `budget` tokens together.

    Drawn by `seed`, the labels of a classification in turn; rows longer than their share only in need.
    """
    if count == 0:
        return []
    order = example_candidates(len(rows), count=count, seed=seed)
    lengths: dict[int, int] = {}
    by_label: dict[str, list[int]] = {}
    for number in order:
        text = example_text(template, rows[number])
        if _SLOT_MARK in text:  # it would be read as a slot
            continue
        lengths[number] = len(tokenizer.encode(text))
        by_label.setdefault("" if template.verbalizers is None else label_of(template, rows[number]), []).append(number)
    share = budget // count
    queues = [sorted(numbers, key=lambda number: max(share, lengths[number])) for numbers in by_label.values()]
    drawn: list[int] = []
    for number in (number for turn in zip_longest(*queues) for number in turn if number is not None):
        if len(drawn) < count and lengths[number] <= budget:
            drawn.append(number)
            budget -= lengths[number]
    return drawn


def example_candidates(rows: int, *, count: int, seed: int) -> list[int]:
    """Return which of so many rows are looked at by `draw_examples`, in order."""
    return random.Random(seed).sample(range(rows), min(rows, count * _DRAWN_FROM))  # noqa: S311  # no secret


def shown_examples(
    template: TuningTemplate, rows: Sequence[Row], tokenizer: Tokenizer, *, context_length: int, seed: int
) -> list[int]:
    """Return which of the training rows come before each prompt; `invalid_parameter` if they take too much room."""
    count = template.examples
    drawn = draw_examples(template, rows, tokenizer, count=count, budget=context_length // 2, seed=seed)
    if len(drawn) < count:
        raise _refused(
            f"Of {count} examples {len(drawn)} fit into half of the model's {context_length} tokens. Show fewer.",
            "examples",
        )
    return drawn


def spell_template(template: PromptTemplate) -> str:
    """Return the text that `parse_template` reads as this template."""
    spelt = (
        f"{{{part.name}}}"
        if isinstance(part, Field)
        else f"{_SLOT_MARK}{part.number}|>"
        if isinstance(part, Slot)
        else part.replace("{", "{{").replace("}", "}}")
        for part in template.parts
    )
    return "".join(spelt)


def _value(row: Row, name: str) -> str:
    if name not in row:
        known = ", ".join(repr(each[:60]) for each in list(row)[:8]) or "none"
        raise HunminError(
            ErrorCode.INVALID_REQUEST,
            f"The row has no field {name[:60]!r} (it has {known}). Map a column to it, or correct the template.",
        )
    return row[name]


def _refused(message: str, param: str) -> HunminError:
    return HunminError(ErrorCode.INVALID_PARAMETER, message, param=param)

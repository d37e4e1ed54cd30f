"""The rows that a template shows as examples: those that the trainer draws, found without holding all the others."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from sys import intern
from typing import overload

from hunmin_contracts.tuning import TuningTemplate
from hunmin_text.prompt_template import parse_template
from hunmin_text.tokenizer import Tokenizer
from hunmin_text.tuning_example import Row as Fields
from hunmin_text.tuning_example import example_candidates, shown_examples

from hunmin_tuning.datasets.row import Row, mapped

UNKNOWN = ""  # stands for every label without a verbalizer
RowsOf = Callable[[], Iterable[Row]]  # the rows from the first on, however often it is called


def label_field(template: TuningTemplate) -> str | None:
    """Return the field of the labels; None without verbalizers."""
    return None if template.verbalizers is None else parse_template(template.answer).fields[0]


def known_label(template: TuningTemplate, label: str) -> str:
    """Return the label as rows are divided by it."""
    return intern(label) if label in (template.verbalizers or {}) else UNKNOWN


def labels_of(rows: RowsOf, template: TuningTemplate, columns: Mapping[str, str]) -> list[str] | None:
    """Return every row's label, as rows are divided by it; None without verbalizers."""
    field = label_field(template)
    if field is None:
        return None
    return [known_label(template, row.fields.get(columns[field], "")) for row in rows()]


def examples_of(
    rows: RowsOf,
    train: Sequence[int],
    template: TuningTemplate,
    columns: Mapping[str, str],
    tokenizer: Tokenizer,
    *,
    context_length: int,
    seed: int,
) -> list[dict[str, str]]:
    """Return the examples by field, of the rows with the numbers `train`, as a job with this seed draws them.

    Raises what `shown_examples` raises, and `invalid_request` where a row has no label of its own.
    """
    candidates = example_candidates(len(train), count=template.examples, seed=seed)
    wanted = {train[number]: number for number in candidates}
    found = {
        wanted[number]: mapped(row, columns).fields
        for number, row in enumerate(rows() if wanted else ())
        if number in wanted
    }
    part = _Candidates(found, len(train))
    shown = shown_examples(template, part, tokenizer, context_length=context_length, seed=seed)
    return [found[number] for number in shown]


class _Candidates(Sequence[Fields]):
    """The training part, of which only the rows that may be drawn are there."""

    def __init__(self, rows: Mapping[int, Fields], count: int) -> None:
        self._rows = rows
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Fields: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Fields]: ...

    def __getitem__(self, index: int | slice) -> Fields | Sequence[Fields]:
        if isinstance(index, slice):
            return [self._rows[number] for number in range(self._count)[index]]
        return self._rows[index]

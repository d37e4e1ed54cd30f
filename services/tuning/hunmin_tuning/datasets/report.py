"""Judges the rows of a dataset for one use: a template, a tokenizer, a length. Rows stream; it knows no file.

Of each row it keeps a hash and, with verbalizers, its label: some tens of bytes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hunmin_contracts.datasets import DatasetInfo, DatasetReport, ReportQuestion, TokenCounts
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.tuning import SplitName, TuningTemplate
from hunmin_text.personal_data import PersonalDataKind, find_personal_data
from hunmin_text.tokenizer import Tokenizer
from hunmin_text.tuning_example import RowEncoder, example_fields

from hunmin_tuning.datasets.examples import RowsOf, examples_of, known_label, label_field
from hunmin_tuning.datasets.findings import Findings
from hunmin_tuning.datasets.row import Row, mapped
from hunmin_tuning.datasets.splits import divided

MIN_ROWS = 10
IMBALANCE = 10  # times as many rows of one label as of another
_PERSONAL: dict[PersonalDataKind, str] = {
    "resident_number": "a resident registration number",
    "card": "a card number",
    "phone": "a phone number",
    "email": "an e-mail address",
    "bank_account": "what looks like a bank account",
}
_FORBIDDEN: frozenset[PersonalDataKind] = frozenset({"resident_number", "card"})


@dataclass(frozen=True)
class Use:
    """What rows are judged for; `context_length` in tokens, of prompt, soft prompt and answer."""

    question: ReportQuestion
    tokenizer: Tokenizer
    context_length: int


def column_of_fields(template: TuningTemplate, columns: Mapping[str, str], known: Sequence[str]) -> dict[str, str]:
    """Return the column of each field of the template; `invalid_parameter` where there is none."""
    fields = example_fields(template)
    chosen = {field: columns.get(field, field) for field in fields}
    if unknown := [field for field in columns if field not in chosen]:
        raise _refused(f"`columns` names {unknown[0][:60]!r}, which is no field of the template: {_listed(fields)}.")
    if missing := [column for column in chosen.values() if column not in known]:
        raise _refused(
            f"The dataset has no column {missing[0][:60]!r}. It has {_listed(known)}: name one of them in `columns` "
            f"for the field {next(field for field in chosen if chosen[field] == missing[0])!r}."
        )
    return chosen


def build_report(info: DatasetInfo, rows: RowsOf, use: Use) -> DatasetReport:
    """Judge every row of a dataset version. Takes as long as encoding them; examples are drawn by reading on twice."""
    judge = _Judge(use, column_of_fields(use.question.template, use.question.columns, info.columns))
    for row in rows():
        judge.look_at(row)
    splits = judge.conclude()
    if use.question.template.examples and not judge.findings.has_errors():
        judge.measure_with_examples(rows)
    findings = [*info.findings, *judge.findings.all()]
    findings.sort(key=lambda each: each.severity != "error")
    return DatasetReport(
        dataset_id=info.id,
        name=info.name,
        version=info.version,
        passes=all(each.severity != "error" for each in findings),
        rows=judge.rows,
        splits=splits,
        labels=judge.counted_labels(),
        tokens=TokenCounts(
            mean=round(judge.tokens / max(judge.fitting, 1), 2), longest=judge.longest, total=judge.tokens
        ),
        context_length=use.context_length,
        findings=findings,
    )


class _Judge:
    def __init__(self, use: Use, columns: Mapping[str, str]) -> None:
        self.findings = Findings()
        self.rows = 0
        self.fitting = 0
        self.tokens = 0
        self.longest = 0
        self._question = use.question
        self._template = use.question.template
        self._columns = columns
        self._may_be_cut = self._template.truncated
        self._tokenizer = use.tokenizer
        self._context_length = use.context_length
        self._encoder = self._new_encoder(())
        self._seen: set[int] = set()
        self._train: list[int] = []
        self._last_line = 1
        self._first_lines: dict[str, int] = {}  # by label
        self._label = label_field(self._template)
        self.labels: list[str] | None = None if self._label is None else []

    def look_at(self, row: Row) -> None:
        """Judge one row."""
        self.rows += 1
        self._last_line = row.line
        row = mapped(row, self._columns)
        self._look_for_personal_data(row)
        self._look_for_duplicate(row)
        label = row.fields[self._label] if self._label is not None else None
        if self.labels is not None and label is not None:
            known = known_label(self._template, label)
            self.labels.append(known)
            self._first_lines.setdefault(known, row.line)
        empty = [field for field, value in row.fields.items() if not value.strip()]
        for field in empty:
            message = "A value is empty. Fill it in, or leave the row out."
            self.findings.add("empty_value", message, line=row.line, column=self._columns[field])
        if empty:
            return
        if label is not None and label not in (self._template.verbalizers or {}):
            known = _listed(list(self._template.verbalizers or {}))
            message = f"A label has no verbalizer; there are {known}. Add one, or correct the label."
            self.findings.add("unknown_label", message, line=row.line, column=self._columns[str(self._label)])
            return
        if not self._template.examples:
            self._measure(row)

    def conclude(self) -> dict[SplitName, int]:
        """Judge what only all rows together show; return how many rows each split has."""
        question = self._question
        assigned = divided(
            self.rows, question.shares, question.seed, labels=self.labels, train_rows=question.train_rows
        )
        splits = Counter(assigned)
        train = splits["train"]
        self._train = [number for number, split in enumerate(assigned) if split == "train"]
        if self.rows < MIN_ROWS:
            message = f"There are {self.rows} rows; a job takes at least {MIN_ROWS}. Add rows."
            self.findings.add("too_few_rows", message, line=self._last_line)
        elif train < (question.train_rows or 0):
            message = (
                f"train_rows asks for {question.train_rows:,} rows, and the training part has {train:,}. Add rows."
            )
            self.findings.add("too_few_rows", message, line=self._last_line)
        elif train <= self._template.examples:
            message = f"{train} rows to train leave none beside {self._template.examples} examples. Add rows."
            self.findings.add("too_few_rows", message, line=self._last_line)
        elif not splits["validation"] or not splits["test"]:
            message = "A part for validation or test has no row. Add rows, or give it a larger share."
            self.findings.add("too_few_rows", message, line=self._last_line)
        self._weigh_labels()
        return {"train": train, "validation": splits["validation"], "test": splits["test"]}

    def measure_with_examples(self, rows: RowsOf) -> None:
        """Measure every row as it comes behind the examples that a job would draw; raise if they cannot be served."""
        examples = examples_of(
            rows,
            self._train,
            self._template,
            self._columns,
            self._tokenizer,
            context_length=self._context_length,
            seed=self._question.example_seed,
        )
        self._encoder = self._new_encoder(examples)
        for row in rows():
            self._measure(mapped(row, self._columns))

    def counted_labels(self) -> dict[str, int] | None:
        """Return how many rows have each label that has a verbalizer; None where there are none."""
        if self.labels is None:
            return None
        counts = Counter(self.labels)
        return {label: counts[label] for label in sorted(self._template.verbalizers or {})}

    def _weigh_labels(self) -> None:
        counts = {label: count for label, count in (self.counted_labels() or {}).items() if count}
        if not counts or self._label is None:
            return
        column = self._columns[self._label]
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        if len(counts) == 1:
            message = f"Every row has the label {most!r}: there is nothing to tell apart. Add rows of another one."
            self.findings.add("one_label", message, line=self._first_lines[most], column=column, count=counts[most])
        elif len(trained := {(self.labels or [])[number] for number in self._train}) == 1:
            only = trained.pop()
            message = f"Every row to train with has the label {only!r}: raise train_rows, or mix the file's rows."
            self.findings.add("one_label", message, line=self._first_lines[only], column=column, count=len(self._train))
        elif counts[most] > IMBALANCE * counts[least]:
            message = (
                f"{counts[most]:,} rows have the label {most!r}, and {counts[least]:,} have {least!r}: accuracy will "
                "say little of these. Look at macro-F1, or even them out."
            )
            self.findings.add("label_balance", message, column=column, severity="warning", count=counts[least])

    def _new_encoder(self, examples: Sequence[Mapping[str, str]]) -> RowEncoder:
        return RowEncoder(
            self._template,
            self._tokenizer,
            slots=self._question.slots,
            max_tokens=self._context_length,
            examples=examples,
        )

    def _look_for_duplicate(self, row: Row) -> None:
        mark = hash(tuple(row.fields.values()))
        if mark in self._seen:
            message = "A row is the same as one before. It counts twice, and may lie in train and test at once."
            self.findings.add("duplicate_row", message, line=row.line, severity="warning")
        self._seen.add(mark)

    def _look_for_personal_data(self, row: Row) -> None:
        for field, value in row.fields.items():
            for kind in {found.kind for found in find_personal_data(value)}:
                self.findings.add(
                    "personal_data",
                    f"A text has {_PERSONAL[kind]}, which the model may learn by heart. Replace it.",
                    line=row.line,
                    column=self._columns[field],
                    severity="error" if kind in _FORBIDDEN else "warning",
                )

    def _measure(self, row: Row) -> None:
        try:
            example = self._encoder.encode(row.fields)
        except HunminError as error:
            if error.code is not ErrorCode.PROMPT_TOO_LONG:
                raise
            self.findings.add("too_long", f"In the template a row is too long. {error.message}", line=row.line)
            return
        length = len(example.prompt) + len(example.answer)
        self.fitting += 1
        self.tokens += length
        self.longest = max(self.longest, length)
        if (
            self._may_be_cut is not None
            and self._encoder.served_fields(row.fields)[self._may_be_cut] != row.fields[self._may_be_cut]
        ):
            message = f"{self._may_be_cut!r} is cut, so that the row fits {self._context_length} tokens."
            self.findings.add(
                "shortened", message, line=row.line, column=self._columns[self._may_be_cut], severity="warning"
            )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _refused(message: str) -> HunminError:
    return HunminError(ErrorCode.INVALID_PARAMETER, message, param="columns")

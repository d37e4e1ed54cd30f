"""Shows rows in a template with their tokens: what a job would train, and what the soft prompt will be asked."""

from collections.abc import Sequence
from functools import partial
from itertools import islice

from hunmin_contracts.datasets import DatasetInfo
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.tuning_preview import Preview, PreviewRequest, PreviewRow, PreviewToken
from hunmin_text.tuning_example import RowEncoder

from hunmin_tuning.datasets.examples import RowsOf, examples_of, labels_of
from hunmin_tuning.datasets.library import BaseModel, Datasets
from hunmin_tuning.datasets.report import column_of_fields
from hunmin_tuning.datasets.row import Row, mapped
from hunmin_tuning.datasets.splits import divided


async def preview(datasets: Datasets, request: PreviewRequest) -> Preview:
    """Render the rows; `invalid_parameter` where the template is wrong, or fits no column."""
    model = datasets.model(request.model)
    if request.dataset is not None:
        return await datasets.read(request.account_id, request.dataset, partial(_of_dataset, request, model))
    return _of_rows(request, model, [Row(number, row) for number, row in enumerate(request.rows or (), 1)])


def _of_rows(request: PreviewRequest, model: BaseModel, rows: Sequence[Row]) -> Preview:
    count = request.template.examples
    if len(rows) <= count:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            f"The template shows {count} examples, and {len(rows)} rows leave none to show behind them. Give more.",
            param="rows",
        )
    columns = column_of_fields(request.template, request.columns, list(rows[0].fields))
    by_field = [mapped(row, columns) for row in rows]
    shown = by_field[count:][request.offset :][: request.limit]
    return _rendered(request, model, shown, examples=[row.fields for row in by_field[:count]])


def _of_dataset(request: PreviewRequest, model: BaseModel, info: DatasetInfo, rows: RowsOf) -> Preview:
    template = request.template
    columns = column_of_fields(template, request.columns, info.columns)
    examples: list[dict[str, str]] = []
    if template.examples:
        labels = labels_of(rows, template, columns)
        splits = divided(info.rows, request.shares, request.seed, labels=labels, train_rows=request.train_rows)
        examples = examples_of(
            rows,
            [number for number, split in enumerate(splits) if split == "train"],
            template,
            columns,
            model.tokenizer,
            context_length=model.context_length,
            seed=request.example_seed,
        )
    shown = [mapped(row, columns) for row in islice(rows(), request.offset, request.offset + request.limit)]
    return _rendered(request, model, shown, examples=examples)


def _rendered(
    request: PreviewRequest, model: BaseModel, rows: Sequence[Row], *, examples: list[dict[str, str]]
) -> Preview:
    encoder = RowEncoder(
        request.template,
        model.tokenizer,
        slots=request.slots,
        max_tokens=model.context_length,
        examples=examples,
    )
    return Preview(
        served=encoder.served,
        examples=examples,
        context_length=model.context_length,
        rows=[_row(encoder, row, request.template.truncated) for row in rows],
    )


def _row(encoder: RowEncoder, row: Row, truncated: str | None) -> PreviewRow:
    try:
        rendered = encoder.render(row.fields)
    except HunminError as error:
        return PreviewRow(line=row.line, text="", tokens=[], error=error.message)
    tokens = [PreviewToken(id=each.id, text=each.text, kind=each.kind) for each in rendered.tokens]
    is_cut = truncated is not None and encoder.served_fields(row.fields)[truncated] != row.fields[truncated]
    return PreviewRow(line=row.line, text=rendered.text, tokens=tokens, is_shortened=is_cut)

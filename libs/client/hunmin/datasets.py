"""`client.datasets`: the account's labelled files, by name and version."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hunmin_contracts.datasets import (
    DatasetFormat,
    DatasetInfo,
    DatasetReport,
    ReportQuestion,
    RowsResponse,
    Shares,
)
from hunmin_contracts.page import Page
from hunmin_contracts.tuning import TuningTemplate

from hunmin.call import LONG_S, Call, File, Pages, model, nothing, segment
from hunmin.resource import Resource, SenderT, iterates, sends

_NO_COLUMNS: Mapping[str, str] = {}
_SHARES = Shares()


class Datasets(Resource[SenderT]):
    """The datasets of the account. A reference is `name@version`, `name` for its newest version, or an id."""

    @sends
    def upload(
        self, file: File, *, name: str, format: DatasetFormat | None = None, filename: str | None = None
    ) -> Call[DatasetInfo]:
        """Keep a file as the next version of `name`; a file that a version has already gives that version.

        `file` is a path, bytes, or a binary file that can seek, read from its beginning; it goes out in pieces, so its
        size does not matter here. CSV, TSV, JSON Lines and Parquet are told by the ending of `filename`, where it has
        one, else by the content, unless `format` says it.
        """
        form = {"name": name} if format is None else {"name": name, "format": format}
        files = {"file": (filename or _filename(file), _repeatable(file))}
        return Call("POST", "datasets", _info, form=form, files=files, answer_within_s=LONG_S)

    @iterates
    def list(self, *, name: str | None = None, page_size: int | None = None) -> Pages[DatasetInfo]:
        """Iterate over the datasets by name, newest version first."""
        query = {"name": name, "limit": page_size}
        read = model(Page[DatasetInfo])
        return Pages(lambda cursor: Call("GET", "datasets", read, query=query | {"cursor": cursor}))

    @sends
    def get(self, reference: str) -> Call[DatasetInfo]:
        """Describe one version."""
        return Call("GET", f"datasets/{segment(reference)}", _info)

    @sends
    def report(
        self,
        reference: str,
        *,
        template: TuningTemplate | Mapping[str, Any],
        model: str,
        columns: Mapping[str, str] = _NO_COLUMNS,
        slots: Sequence[int] = (20,),
        shares: Shares = _SHARES,
        seed: int = 0,
        train_rows: int | None = None,
        example_seed: int = 0,
    ) -> Call[DatasetReport]:
        """Say what a job with this template would make of every row, and whether it could start (`passes`).

        Give it what the job is given; `seed` is the job's `split_seed`, `example_seed` that of its hyper-parameters.
        """
        question = ReportQuestion.model_validate(
            {
                "template": template,
                "model": model,
                "columns": columns,
                "slots": [*slots],
                "shares": shares,
                "seed": seed,
                "train_rows": train_rows,
                "example_seed": example_seed,
            }
        )
        path = f"datasets/{segment(reference)}/report"
        return Call("POST", path, _report, body=question, answer_within_s=LONG_S)

    @sends
    def rows(self, reference: str, *, limit: int = 20, offset: int = 0, seed: int | None = None) -> Call[RowsResponse]:
        """Read rows with their lines: `limit` of them behind `offset`, or with `seed` as many drawn at random."""
        query = {"limit": limit, "offset": offset, "seed": seed}
        return Call("GET", f"datasets/{segment(reference)}/rows", model(RowsResponse), query=query)

    @sends
    def delete(self, reference: str) -> Call[None]:
        """Delete one version, the newest if `reference` names none. Jobs that have begun go on."""
        # By its name alone, a second request would delete the version before.
        return Call("DELETE", f"datasets/{segment(reference)}", nothing, is_repeatable="@" in reference)


_info = model(DatasetInfo)
_report = model(DatasetReport)


def _filename(file: File) -> str:
    """Return what the file is called where it lies; a name without an ending leaves the format to the content."""
    name = file if isinstance(file, str | os.PathLike) else getattr(file, "name", None)
    return Path(name).name if isinstance(name, str | os.PathLike) else "dataset"


def _repeatable(file: File) -> File:
    if not isinstance(file, bytes | str | os.PathLike) and not file.seekable():
        raise ValueError("The file cannot seek, so it could not be sent again: save it first, and give its path.")
    return file

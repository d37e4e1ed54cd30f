"""The job folder: what a training process is told and what it leaves, by file name. It knows no torch.

`job.json` and `rows.jsonl` are there before the process starts. `result.json` comes last: where it is, all is.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.schema import Schema
from hunmin_contracts.tuning import Hyperparameters, SplitName, TuningResult, TuningTemplate
from pydantic import Field, ValidationError


class TrainerJob(Schema):
    """What is trained. `provenance` goes into the soft prompt's manifest as it is.

    `model_digest` is that of the weights that will serve; a folder with others is refused.
    `evaluation_dtype` is the type in which the model will be served, so that the test part is answered as it will be.
    Without `threads` torch takes what it finds; another number may give other last bits.
    """

    template: TuningTemplate
    model_folder: Path
    model_digest: str | None = None
    hyperparameters: Hyperparameters = Hyperparameters()
    provenance: dict[str, str] = Field(default={}, max_length=64)
    evaluation_dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int | None = Field(default=None, ge=1)
    steps_per_checkpoint: int = Field(default=50, ge=1)


class JobRow(Schema):
    """A row of the dataset: its line in the original file, the part it was assigned to, and its fields."""

    line: int
    split: SplitName
    fields: dict[str, str]


class Failure(Schema):
    """Why the job itself is wrong, the content of `error.json`."""

    code: ErrorCode
    message: str


class JobFolder:
    """The files of one job."""

    def __init__(self, folder: Path) -> None:
        self.job = folder / "job.json"
        self.rows = folder / "rows.jsonl"
        self.metrics = folder / "metrics.jsonl"
        self.checkpoint = folder / "checkpoint" / "state.safetensors"
        self.soft_prompt = folder / "soft_prompt.safetensors"
        self.result = folder / "result.json"
        self.error = folder / "error.json"

    def read_job(self) -> TrainerJob:
        """Return the job; `invalid_request` if the file is none."""
        try:
            return TrainerJob.model_validate_json(self.job.read_bytes())
        except (OSError, ValidationError) as error:
            raise HunminError(ErrorCode.INVALID_REQUEST, f"{self.job} is missing or not a job: {error}") from error

    def read_rows(self) -> dict[SplitName, list[dict[str, str]]]:
        """Return the fields of the rows of each part, in order; `invalid_request` if a part has none."""
        parts: dict[SplitName, list[dict[str, str]]] = {"train": [], "validation": [], "test": []}
        for row in self._rows():
            parts[row.split].append(row.fields)
        empty = [split for split, rows in parts.items() if not rows]
        if empty:
            raise HunminError(
                ErrorCode.INVALID_REQUEST,
                f"The {' and the '.join(empty)} part has no row. Give it a larger share, or upload more rows.",
            )
        return parts

    def write_result(self, result: TuningResult) -> None:
        """Write the end of the job, whole or not at all."""
        write_whole(self.result, result.model_dump_json().encode())

    def write_error(self, error: HunminError) -> None:
        """Write why the job is wrong."""
        failure = Failure(code=error.code, message=error.message)
        write_whole(self.error, failure.model_dump_json().encode() + b"\n")

    def _rows(self) -> Iterator[JobRow]:
        try:
            with self.rows.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    try:
                        yield JobRow.model_validate(json.loads(line))
                    except ValueError as error:
                        raise HunminError(
                            ErrorCode.INVALID_REQUEST, f"Line {number} of {self.rows} is not a row: {error}"
                        ) from error
        except OSError as error:
            raise HunminError(ErrorCode.INVALID_REQUEST, f"{self.rows} cannot be read: {error}") from error


def write_whole(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file so that a reader, or a start after a power cut, finds the old content or the new one."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.writelines([content] if isinstance(content, bytes) else content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

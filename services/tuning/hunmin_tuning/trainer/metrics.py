"""metrics.jsonl: one line for each step and each evaluation, exactly one however often the process was started."""

import os
from io import BufferedWriter
from pathlib import Path

from hunmin_contracts.tuning import JobMetrics, StepMetrics, ValidationMetrics
from pydantic import TypeAdapter, ValidationError

_LINE: TypeAdapter[JobMetrics] = TypeAdapter(JobMetrics)


class MetricsFile:
    """The file, opened to go on after a step. Every line is in the system's hands when `write` returns."""

    def __init__(self, path: Path, *, step: int, evaluated: int) -> None:
        """Keep the steps up to `step` and the evaluations up to that of step `evaluated`; drop what came after."""
        self._path = path
        kept = [line for line in read_metrics(path) if line.step <= (step if line.kind == "step" else evaluated)]
        content = b"".join(_bytes(line) for line in kept)
        if not path.exists() or path.read_bytes() != content:
            part = path.with_name(f"{path.name}.part")
            part.write_bytes(content)
            part.replace(path)
        self._file: BufferedWriter = path.open("ab")

    def write(self, line: StepMetrics | ValidationMetrics) -> None:
        """Add a line."""
        self._file.write(_bytes(line))
        self._file.flush()

    def settle(self) -> None:
        """Wait until all lines are on the disk: a checkpoint must not outlive the lines that it says are there."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[StepMetrics | ValidationMetrics]:
    """Return the lines of the file; the first that is not whole ends it."""
    lines: list[StepMetrics | ValidationMetrics] = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        try:
            if not line.endswith(b"\n"):
                break
            lines.append(_LINE.validate_json(line))
        except ValidationError:
            break
    return lines


def _bytes(line: StepMetrics | ValidationMetrics) -> bytes:
    return line.model_dump_json().encode() + b"\n"

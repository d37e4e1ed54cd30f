"""What a file may at most hold, and how a file that cannot be read is refused. It reads nothing."""

from dataclasses import dataclass
from typing import Any

from hunmin_contracts.errors import ErrorCode, HunminError


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Of one file. They keep what is in memory at a time small, whatever the file's size."""

    line_characters: int = 2**20  # not less than a chunk that is read at a time
    cell_characters: int = 100_000
    columns: int = 256
    rows: int = 2_000_000
    text_bytes: int = 4 * 2**30  # of all rows as they are kept
    row_group_bytes: int = 512 * 2**20  # of Parquet, decompressed
    faults: int = 10_000  # rows that are no rows, before the file is given up


def refused(message: str, *, line: int | None = None, column: int | None = None) -> HunminError:
    """Return the error of a file that cannot be read, its place in the details; `column` counts characters from 1."""
    place: dict[str, Any] = {}
    if line is not None:
        where = f"Line {line:,}" if column is None else f"Line {line:,}, column {column:,}"
        message = f"{where}: {message}"
        place = {"line": line} | ({} if column is None else {"column": column})
    return HunminError(ErrorCode.INVALID_REQUEST, message, param="file", **place)

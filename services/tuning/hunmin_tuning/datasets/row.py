"""A row, and the names of its columns. It knows no format."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hunmin_tuning.datasets.bounds import Bounds, refused

MAX_NAME = 100  # characters
_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)*")


class Row(NamedTuple):
    """A row: text by column, and the line where it begins in its file."""

    line: int
    fields: dict[str, str]


class Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written, with names that come twice."""


def mapped(row: Row, columns: Mapping[str, str]) -> Row:
    """Return a row by field instead of column; a column that the row lacks is empty."""
    return Row(row.line, {field: row.fields.get(column, "") for field, column in columns.items()})


def checked_names(names: Sequence[str], line: int, bounds: Bounds) -> list[str]:
    """Return the names of columns, or raise what is wrong with them."""
    if len(names) > bounds.columns:
        raise refused(f"there are {len(names):,} columns; at most {bounds.columns} are taken.", line=line)
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise refused(f"column {number} of the file has no name. The first line names the columns.", line=line)
        if _NUMBER.fullmatch(name.strip()) or len(name) > MAX_NAME or "\n" in name:
            raise refused(
                f"column {number} of the file would be named by a number or a long text, as if this were a row. "
                "Write the names of the columns into the first line.",
                line=line,
            )
    stripped = [name.strip() for name in names]
    twice = next((name for number, name in enumerate(stripped) if name in stripped[:number]), None)
    if twice is not None:
        raise refused(f"two columns are named {twice[:MAX_NAME]!r}. Give each a name of its own.", line=line)
    return stripped

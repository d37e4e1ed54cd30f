"""Rows of a file, as they stream: text by column, with the line where each begins. One line is in memory at a time.

What is wrong with one row is a finding, and the reading goes on; what leaves no rows to read is raised.
"""

import csv
import json
import re
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO

from hunmin_contracts.datasets import FindingKind
from hunmin_contracts.errors import HunminError

from hunmin_tuning.datasets.bounds import Bounds, refused
from hunmin_tuning.datasets.chats import has_chat, row_of_chat
from hunmin_tuning.datasets.findings import Findings
from hunmin_tuning.datasets.row import MAX_NAME, Pairs, Row, checked_names
from hunmin_tuning.datasets.source import Source

_REACHES_OUT = re.compile(
    r"\s*[=+\-@](?:[\s\d+\-*/=@(]*\w{1,60}\|.{0,500}!"
    r"|.*?\b(?:HYPERLINK|WEBSERVICE|IMPORT(?:XML|HTML|DATA|FEED|RANGE)|DDE|EXEC|CALL|REGISTER|RTD)\s*\()",
    re.I | re.S,
)
_FORMULA = re.compile(r"\s*=\s*[-+(]*(?:[A-Z][A-Z.0-9]*\(|\$?[A-Z]{1,3}\$?\d)", re.I)


class Reading:
    """One pass over one file. `columns` and `findings` are complete when `rows` has ended."""

    def __init__(self, file: BinaryIO, source: Source, bounds: Bounds) -> None:
        self.columns: list[str] = []
        self.is_chat = False
        self.findings = Findings()
        self.count = 0
        self._file = file
        self._source = source
        self._bounds = bounds
        self._faults = 0

    def rows(self) -> Generator[Row, None, None]:
        """Yield every row that is one."""
        if self._source.format == "parquet":
            from hunmin_tuning.datasets.parquet import read_parquet  # pyarrow is for Parquet alone

            found = read_parquet(self._file, self.columns, self._bounds)
        else:
            lines = self._source.lines(self._file, self._bounds)
            found = self._objects(lines) if self._source.format == "jsonl" else self._records(lines)
        for row in found:
            if self.count == self._bounds.rows:
                raise refused(f"the file has more than {self._bounds.rows:,} rows. Send fewer.", line=row.line)
            if self._is_fit(row):
                self.count += 1
                yield row
        if self.count == 0:
            message = "The file has no row that can be used. Add rows below the column names."
            self.findings.add("no_rows", message, line=1)

    def _fault(self, message: str, line: int, kind: FindingKind = "malformed_row") -> None:
        self._faults += 1
        if self._faults > self._bounds.faults:
            raise refused(f"more than {self._bounds.faults:,} lines are no rows, this one too: {message}", line=line)
        self.findings.add(kind, message, line=line)

    def _is_fit(self, row: Row) -> bool:
        for column, value in row.fields.items():
            if len(value) > self._bounds.cell_characters:
                self._fault(f"A cell has more than {self._bounds.cell_characters:,} characters. Shorten it.", row.line)
                return False
            if value == column:
                message = "A row repeats the column's name: files were joined, or the names of the columns are missing."
                self.findings.add("repeated_header", message, line=row.line, column=column, severity="warning")
            if value[:1] in "=+-@ \t\r\n" and value:
                self._look_for_formula(row.line, column, value)
        return True

    def _look_for_formula(self, line: int, column: str, value: str) -> None:
        if _REACHES_OUT.match(value):
            message = "A cell is a formula that starts programs or opens addresses in a spreadsheet. Remove it."
            self.findings.add("formula", message, line=line, column=column)
        elif _FORMULA.match(value):
            message = "A cell is a formula; it is taken as text. Save the sheet's values if that is not meant."
            self.findings.add("formula", message, line=line, column=column, severity="warning")

    def _records(self, lines: Iterator[str]) -> Iterator[Row]:
        """Read CSV (RFC 4180) or TSV (IANA: no quotes)."""
        if self._source.format == "tsv":
            records: Iterator[tuple[int, list[str]]] = _split(lines)
        else:
            records = _parsed(lines, self._bounds)
        header = next(((line, cells) for line, cells in records if any(cells)), None)
        if header is None:
            raise refused("The file has no line of column names.", line=1)
        self.columns = checked_names(header[1], header[0], self._bounds)
        for line, cells in records:
            if not any(cells) and len(cells) <= 1:  # an empty line
                continue
            if len(cells) != len(self.columns):
                message = f"The row has {len(cells)} cells, and there are {len(self.columns)} columns. " + (
                    "Put cells with a comma or a line end into quotes."
                    if self._source.format == "csv"
                    else "A cell can hold no tab and no line end."
                )
                self._fault(message, line, "ragged_row")
                continue
            yield Row(line, dict(zip(self.columns, cells, strict=True)))

    def _objects(self, lines: Iterator[str]) -> Iterator[Row]:
        known: dict[str, None] = {}
        is_first = True
        reader = json.JSONDecoder(
            object_pairs_hook=Pairs, parse_int=str, parse_float=str, parse_constant=_refuse_constant
        )
        for line, text in enumerate(lines, 1):
            if not text.strip():
                continue
            try:
                value = reader.decode(text)
                self.is_chat = has_chat(value) if is_first else self.is_chat
                is_first = False
                fields = _checked(row_of_chat(value) if self.is_chat else _fields(value))
            except json.JSONDecodeError as error:
                self._fault(f"Column {error.colno}: it is no JSON ({error.msg}). Write one object a line.", line)
                continue
            except RecursionError:
                self._fault("The JSON is nested too deeply. Write flat objects.", line)
                continue
            except ValueError as error:
                self._fault(str(error), line)
                continue
            known.update(dict.fromkeys(fields))
            if len(known) > self._bounds.columns:
                raise refused(f"there are more than {self._bounds.columns} different names of fields.", line=line)
            self.columns = list(known)
            yield Row(line, fields)


def _split(lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, 1):
        yield number, line.rstrip("\r\n").split("\t")


def _parsed(lines: Iterator[str], bounds: Bounds) -> Iterator[tuple[int, list[str]]]:
    record: list[str] = []  # the lines of the row that is being read

    def kept() -> Iterator[str]:
        for line in lines:
            record.append(line)
            yield line

    csv.field_size_limit(bounds.line_characters)  # of the process; what is too long for a cell is a finding
    reader = csv.reader(kept(), strict=True)
    while True:
        first = reader.line_num + 1
        record.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _unreadable("".join(record), first, str(error)) from None
        yield first, cells


def _unreadable(record: str, first: int, message: str) -> HunminError:
    """Say where the quotes of a row go wrong: csv tells the line that it gave up at, not the one where it began."""
    line, column = first, 1
    opened: tuple[int, int] | None = None
    previous = ","
    is_closing = False  # the quote before may be the cell's end, or the first half of one within it
    for letter in record:
        if is_closing and letter not in '",\r\n':
            wanted = "a quote ends the cell, and text follows it. Write a quote within a cell twice."
            return refused(wanted, line=line, column=column)
        if letter != '"':
            opened, is_closing = (None if is_closing else opened), False
        elif opened is None:
            opened = (line, column) if previous == "," else None
        else:
            is_closing = not is_closing
        previous = letter
        line, column = (line + 1, 1) if letter == "\n" else (line, column + 1)
    if opened is None:
        return refused(f"the row is no CSV: {message}. Correct its quotes.", line=first, column=1)
    wanted = (
        "a quote opens a cell here that does not end, or has too many characters. Close it, or write a quote within a "
        "cell twice."
    )
    return refused(wanted, line=opened[0], column=opened[1])


def _fields(value: Any) -> dict[str, str]:
    if not isinstance(value, Pairs):
        raise ValueError('The line is JSON, and no object. Write {"column": "text", …}.')
    fields: dict[str, str] = {}
    for name, content in value:
        if name in fields:
            raise ValueError(f"The object has {name[:MAX_NAME]!r} twice. Leave one of them.")
        if not name.strip() or len(name) > MAX_NAME:
            raise ValueError(f"A name of a field is empty, or longer than {MAX_NAME} characters. Shorten it.")
        if isinstance(content, list):
            raise ValueError(f"{name!r} is a list or an object. Values are text, numbers, true, false or null.")
        fields[name] = _text(content)
    if not fields:
        raise ValueError('The object is empty. Write {"column": "text", …}.')
    return fields


def _checked(fields: dict[str, str]) -> dict[str, str]:
    joined = "".join((*fields, *fields.values()))
    if "\0" in joined or any("\ud800" <= letter <= "\udfff" for letter in joined if letter > "\ud7ff"):
        raise ValueError("A text has U+0000 or half a surrogate pair. Remove it.")
    return fields


def _text(content: Any) -> str:
    if isinstance(content, bool):
        return "true" if content else "false"
    return "" if content is None else str(content)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"The line holds {name}, which is not JSON. Write a number or null.")

"""Reads the file of a batch line by line, and says of every line what is wrong with it. No I/O but the file's."""

import json
from typing import Annotated, Any, BinaryIO, Literal

from fastapi.exceptions import RequestValidationError
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_kit.web import validated
from hunmin_kit.web.errors import as_hunmin_error
from pydantic import Field

from hunmin_gateway.batches.batch import MAX_ERRORS, MAX_LINE_BYTES, MAX_LINES, Dialect, Line, LineError
from hunmin_gateway.public_schema import NAME, PublicSchema

_CHUNK_LINES = 500
_CHUNK_BYTES = 4 * 2**20
_BOM = b"\xef\xbb\xbf"


class _Request(PublicSchema):
    """A line of the file."""

    custom_id: Annotated[str, Field(min_length=1, max_length=512, pattern=NAME)]
    method: Literal["POST"]
    url: str
    body: dict[str, Any]


class InputFile:
    """One pass over a file. `errors` holds the first that were found; with any of them the batch cannot be run."""

    def __init__(self, file: BinaryIO, endpoint: str, dialect: Dialect) -> None:
        self.errors: list[LineError] = []
        self.count = 0
        self.is_read = False
        self._file = file
        self._endpoint = endpoint
        self._dialect = dialect
        self._number = 0
        self._seen: dict[str, int] = {}  # the line of each custom_id

    def next_lines(self) -> list[Line]:
        """Read on for a while, and return the requests that are right; to be called in a thread, until `is_read`."""
        lines: list[Line] = []
        read_bytes = 0
        while len(lines) < _CHUNK_LINES and read_bytes < _CHUNK_BYTES and not self.is_read:
            raw = self._file.readline(MAX_LINE_BYTES + 1)
            self._number += 1
            read_bytes += len(raw)
            if not raw or len(self.errors) == MAX_ERRORS:
                self._end()
            elif raw.removeprefix(_BOM).strip():
                self._read(raw, lines)
        return lines

    def _end(self) -> None:
        self.is_read = True
        if not self._seen and not self.errors:
            self._refuse("empty_file", "The file has no requests. Write one a line.", None)

    def _read(self, raw: bytes, lines: list[Line]) -> None:
        if len(raw) > MAX_LINE_BYTES:
            while raw and not raw.endswith(b"\n"):  # the rest of it
                raw = self._file.readline(MAX_LINE_BYTES)
            self._refuse("line_too_long", f"The line has more than {MAX_LINE_BYTES:,} bytes. Ask for less in it.")
            return
        if self.count == MAX_LINES:
            self._refuse("too_many_requests", f"The file has more than {MAX_LINES:,} requests. Divide it into several.")
            self.is_read = True
            return
        self.count += 1
        try:
            line = self._line(raw.removeprefix(_BOM) if self._number == 1 else raw)
        except HunminError as error:
            param = error.details.get("param")
            code = error.details.get("batch_code") or self._dialect.code_of(error)
            self._refuse(str(code), error.message, param=param if isinstance(param, str) else None)
        else:
            lines.append(line)

    def _line(self, raw: bytes) -> Line:
        _check_json(raw)
        try:
            request = validated(_Request, raw)
        except RequestValidationError as error:
            raise as_hunmin_error(error) or error from None
        if request.url != self._endpoint:
            raise _wrong("mismatched_endpoint", f"url is to be {self._endpoint}, the endpoint of the batch.", "url")
        first = self._seen.setdefault(request.custom_id, self._number)
        if first != self._number:
            message = f"Line {first} has the same custom_id. Give every request one of its own."
            raise _wrong("duplicate_custom_id", message, "custom_id")
        body = json.dumps(request.body, ensure_ascii=False)
        try:
            self._dialect.check(self._endpoint, body)
        except HunminError as error:
            param = error.details.get("param")
            details = error.details | ({"param": f"body.{param}"} if param else {"param": "body"})
            raise HunminError(error.code, error.message, **details) from None
        return Line(self._number, request.custom_id, body)

    def _refuse(self, code: str, message: str, line: int | None = -1, *, param: str | None = None) -> None:
        number = self._number if line == -1 else line
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(LineError(code, message, number, param))


def _check_json(raw: bytes) -> None:
    """Refuse what is no JSON, and what Python's reader takes for it."""
    try:
        value = json.loads(raw, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode()  # no lone surrogates
    except UnicodeEncodeError:
        message = "The line holds half a surrogate pair (\\ud800 to \\udfff), which is no text. Remove it."
        raise _wrong("invalid_json_line", message) from None
    except (ValueError, RecursionError):
        message = "The line is no JSON. Write one object a line, in UTF-8."
        raise _wrong("invalid_json_line", message) from None


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


def _wrong(code: str, message: str, param: str | None = None) -> HunminError:
    return HunminError(ErrorCode.INVALID_PARAMETER, message, batch_code=code, param=param)

"""Between a dataset's rows and a batch: the file of requests that is made of them, and the table of their answers."""

import asyncio
import csv
import io
import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any, BinaryIO

from hunmin_contracts.datasets import ROWS, DatasetInfo, DatasetRow, RowsRequest
from hunmin_contracts.errors import ErrorCode, HunminError

from hunmin_gateway.batches.batch import MAX_FILE_BYTES, MAX_LINE_BYTES
from hunmin_gateway.batches.filling import Plan, answer_of, custom_id
from hunmin_gateway.files.store import add_file, blob_key
from hunmin_gateway.parts import Parts
from hunmin_gateway.principal import Principal
from hunmin_gateway.tables import Batch, StoredFile

_PAGE = 200  # rows in memory at a time
_ANSWER, _ERROR = "completion", "error"


async def rows_of(dataset: DatasetInfo, principal: Principal, parts: Parts) -> AsyncIterator[list[DatasetRow]]:
    """Yield the rows of a dataset, some at a time."""
    for offset in range(0, dataset.rows, _PAGE):
        request = RowsRequest(
            account_id=principal.account_id, reference=dataset.id, limit=_PAGE, offset=offset, seed=None
        )
        yield (await parts.tuning.call(ROWS, request)).rows


async def keep_requests(
    plan: Plan, dataset: DatasetInfo, check: Callable[[str], None], principal: Principal, parts: Parts
) -> StoredFile:
    """Keep the file of requests that the rows make; `check` raises what is wrong with a body."""
    with tempfile.TemporaryFile() as file:
        async for rows in rows_of(dataset, principal, parts):
            await asyncio.to_thread(_write, file, rows, plan, check)
        size = file.tell()
        file.seek(0)
        filename = f"{dataset.name}-{dataset.version}.jsonl"

        async def add(_: int | None) -> StoredFile:
            return await add_file(
                parts.database, parts.blobs, principal, content=file, filename=filename, size_bytes=size
            )

        return await parts.storage.keep(principal, size, add)


def _write(file: BinaryIO, rows: Iterable[DatasetRow], plan: Plan, check: Callable[[str], None]) -> None:
    for row in rows:
        if plan.template.length(row.fields) > MAX_LINE_BYTES:  # known before it takes memory
            raise _too_large(f"Line {row.line:,}: the filled template has more than {MAX_LINE_BYTES:,} bytes")
        try:
            check(json.dumps(plan.body(row.fields), ensure_ascii=False))
        except HunminError as error:
            param = error.details.get("param")
            place = param if param in (None, "model") else f"parameters.{param}"
            message = f"Line {row.line:,}: {error.message}"
            raise HunminError(error.code, message, **error.details | {"param": place}) from None
        file.write(plan.line(row.line, row.fields))
        if file.tell() > MAX_FILE_BYTES:
            raise _too_large(f"The requests have more than {MAX_FILE_BYTES:,} bytes together")


def _too_large(what: str) -> HunminError:
    return HunminError(
        ErrorCode.TOO_LARGE,
        f"{what}. Shorten the template, or divide the rows into several batches.",
        param="template",
    )


async def table(batch: Batch, dataset: DatasetInfo, principal: Principal, parts: Parts) -> AsyncGenerator[bytes, None]:
    """Yield a table of the rows with what was answered to each, or what went wrong, as UTF-8 with its mark."""
    columns = dataset.columns
    answer, error = (_free(name, columns) for name in (_ANSWER, _ERROR))
    async with AsyncExitStack() as stack:
        names = [name for name in (batch.output_file_id, batch.error_file_id) if name is not None]
        files = [await stack.enter_async_context(parts.blobs.open(blob_key(name))) for name in names]
        yield b"\xef\xbb\xbf" + _lines([[*columns, answer, error]])  # the mark: or Excel takes it for CP949
        results = _Results(files)
        async for rows in rows_of(dataset, principal, parts):
            answers = await asyncio.to_thread(results.of, rows)
            cells = (
                [*(row.fields.get(column, "") for column in columns), *found]
                for row, found in zip(rows, answers, strict=True)
            )
            yield _lines(cells)


class _Results:
    """The results in two files, each in the order of the rows: one of each is in memory at a time."""

    def __init__(self, files: list[BinaryIO]) -> None:
        self._files = files
        self._next = [_read(file) for file in files]

    def of(self, rows: Iterable[DatasetRow]) -> list[tuple[str, str]]:
        """Return the answer to each row, and what went wrong; rows are asked for in their order."""
        return [self._of(row) for row in rows]

    def _of(self, row: DatasetRow) -> tuple[str, str]:
        name = custom_id(row.line)
        for place, result in enumerate(self._next):
            if result is not None and result["custom_id"] == name:
                self._next[place] = _read(self._files[place])
                return answer_of(result)
        return "", ""  # the batch ended before it could be run


def _read(file: BinaryIO) -> dict[str, Any] | None:
    line = file.readline()
    return json.loads(line) if line else None


def _free(name: str, columns: Iterable[str]) -> str:
    while name in columns:
        name = f"{name}_"
    return name


def _lines(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()

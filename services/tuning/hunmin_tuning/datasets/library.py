"""Datasets from upload to use: files are read once, kept as they came and as rows, judged, and read again.

Whatever takes time on a file runs in a thread, and holds no more of it than a line.
"""

import asyncio
import hashlib
import json
import os
import random
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from hunmin_contracts.datasets import (
    DatasetInfo,
    DatasetPage,
    DatasetReport,
    DatasetRow,
    ListRequest,
    ReportRequest,
    RowsRequest,
    UploadRequest,
)
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, new_dataset_id
from hunmin_contracts.storage import refuse_to_store
from hunmin_kit.blobs import Blobs
from hunmin_text.tokenizer import Tokenizer

from hunmin_tuning.datasets.bounds import Bounds, refused
from hunmin_tuning.datasets.examples import RowsOf
from hunmin_tuning.datasets.reading import Reading
from hunmin_tuning.datasets.registry import Registry
from hunmin_tuning.datasets.report import Use, build_report
from hunmin_tuning.datasets.row import Row
from hunmin_tuning.datasets.source import CHUNK_BYTES, Source, inspect

ResultT = TypeVar("ResultT")

_AT_A_TIME = 2  # files that are read or judged: each keeps a core busy


@dataclass(frozen=True)
class BaseModel:
    """What a report must know of a model."""

    tokenizer: Tokenizer
    context_length: int


class Datasets:
    """The datasets of all accounts, for these base models."""

    def __init__(self, registry: Registry, blobs: Blobs, models: Mapping[str, BaseModel], bounds: Bounds) -> None:
        self._registry = registry
        self._blobs = blobs
        self._models = models
        self._bounds = bounds
        self._turns = asyncio.Semaphore(_AT_A_TIME)
        self._judging: dict[str, asyncio.Task[DatasetReport]] = {}  # by dataset and question

    async def add(self, request: UploadRequest, file: BinaryIO) -> DatasetInfo:
        """Keep a file as the next version of its name, or return the version that has it.

        What cannot be read as rows at all is an `invalid_request`, with `line` and `column` in its details; what takes
        more than it may, `quota_exceeded`.
        """
        async with self._turns:
            digest, size_bytes = await asyncio.to_thread(_digest, file)
            source = await asyncio.to_thread(
                inspect, file, self._bounds, filename=request.filename, format=request.format
            )
            same = await self._registry.find_same(request.account_id, request.name, digest, source.format)
            if same is not None:
                return same
            _check_room(size_bytes, request.max_stored_bytes)  # before the work of reading it
            dataset_id = new_dataset_id()
            # The files come first and go last: what the registry names is there. A failure between leaves files behind.
            with tempfile.TemporaryFile() as rows:
                reading = await asyncio.to_thread(_write_rows, file, source, self._bounds, rows)
                rows_bytes = os.fstat(rows.fileno()).st_size
                _check_room(size_bytes + rows_bytes, request.max_stored_bytes)
                await self._blobs.put_file(_rows_key(dataset_id), rows)
            file.seek(0)
            await self._blobs.put_file(_original_key(dataset_id), file)
        info = await self._registry.add(
            request.account_id,
            id=dataset_id,
            name=request.name,
            format=source.format,
            encoding=source.encoding,
            columns=reading.columns,
            rows=reading.count,
            digest=digest,
            size_bytes=size_bytes,
            rows_bytes=rows_bytes,
            findings=[finding.model_dump(mode="json") for finding in reading.findings.all()],
            filename=request.filename,
            is_chat=reading.is_chat,
        )
        if info.id != dataset_id:  # the same file came twice at once
            await self._forget(dataset_id)
        return info

    async def describe(self, account_id: AccountId, reference: str) -> DatasetInfo:
        """Return one; `not_found` if the account has none of that id, name or version."""
        return await self._registry.find(account_id, reference)

    async def page(self, request: ListRequest) -> DatasetPage:
        """List those of an account."""
        return await self._registry.page(request)

    async def report(self, request: ReportRequest) -> DatasetReport:
        """Judge a dataset for one use, or return what was said before; `invalid_parameter` if it fits no column."""
        info = await self._registry.find(request.account_id, request.reference)
        model = self.model(request.model)
        if info.is_chat and model.tokenizer.chat_template is not None:
            raise HunminError(
                ErrorCode.INVALID_PARAMETER,
                f"{request.model} has a chat template of its own, and the conversations of {info.name}@{info.version} "
                "were rendered without one. Send rows of prompt and completion, each prompt as this model is asked.",
                param="model",
            )
        asked = request.model_dump_json(exclude={"account_id", "reference"})
        basis = f"{asked} {model.tokenizer.digest} {model.context_length}"
        question = hashlib.sha256(basis.encode()).hexdigest()
        if (known := await self._registry.find_report(info, question)) is not None:
            return known
        key = f"{info.id} {question}"
        task = self._judging.get(key)
        if task is None:
            use = Use(request, model.tokenizer, model.context_length)
            task = self._judging[key] = asyncio.create_task(self._judge(info, question, use))
            task.add_done_callback(lambda task: self._judged(key, task))
        # A large file may take longer than whoever asks will wait: the report is kept for when they ask again.
        return await asyncio.shield(task)

    async def some_rows(self, request: RowsRequest) -> list[DatasetRow]:
        """Return rows from a place, or drawn by a seed, in the order of the file."""
        info = await self._registry.find(request.account_id, request.reference)
        wanted: Iterable[int] = range(request.offset, min(request.offset + request.limit, info.rows))
        if request.seed is not None:
            drawn = random.Random(request.seed).sample(range(info.rows), min(request.limit, info.rows))  # noqa: S311
            wanted = sorted(drawn)
        async with self._blobs.open(_rows_key(info.id)) as file:
            return await asyncio.to_thread(_picked, file, list(wanted))

    async def read(
        self, account_id: AccountId, reference: str, use: Callable[[DatasetInfo, RowsOf], ResultT]
    ) -> ResultT:
        """Return what `use` makes of a dataset and its rows, in a thread."""
        info = await self._registry.find(account_id, reference)
        return await self._read(info, lambda rows: use(info, rows))

    def model(self, name: str) -> BaseModel:
        """Return a base model; `model_not_found` if there is none of this name."""
        model = self._models.get(name)
        if model is None:
            raise HunminError(
                ErrorCode.MODEL_NOT_FOUND,
                f"There is no model {name[:80]!r} to tune. There are: {', '.join(self._models)}.",
                param="model",
            )
        return model

    async def file(self, account_id: AccountId, reference: str) -> AsyncGenerator[bytes, None]:
        """Yield the file as it came, a piece in memory at a time."""
        info = await self._registry.find(account_id, reference)
        async with self._blobs.open(_original_key(info.id)) as file:
            while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield piece

    async def delete(self, account_id: AccountId, reference: str) -> None:
        """Delete one. Jobs that have begun keep their copy of its rows."""
        info = await self._registry.remove(account_id, reference)
        await self._forget(info.id)

    async def stored_bytes(self, account_id: AccountId) -> int:
        """Return how much an account's datasets take, their rows with them."""
        for dataset_id in await self._registry.unmeasured(account_id):  # kept by the release before
            try:
                async with self._blobs.open(_rows_key(dataset_id)) as file:
                    rows_bytes = await asyncio.to_thread(file.seek, 0, os.SEEK_END)
            except HunminError as error:
                if error.code is not ErrorCode.NOT_FOUND:
                    raise
                continue  # it is being deleted
            await self._registry.measured(dataset_id, rows_bytes)
        return await self._registry.stored_bytes(account_id)

    async def close(self) -> None:
        """Give up reports that are being made."""
        tasks = list(self._judging.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _judge(self, info: DatasetInfo, question: str, use: Use) -> DatasetReport:
        async with self._turns:
            report = await self._read(info, lambda rows: build_report(info, rows, use))
        await self._registry.keep_report(info, question, report)
        return report

    async def _read(self, info: DatasetInfo, use: Callable[[RowsOf], ResultT]) -> ResultT:
        async with self._blobs.open(_rows_key(info.id)) as file:
            return await asyncio.to_thread(use, lambda: _parsed(file))

    def _judged(self, key: str, task: asyncio.Task[DatasetReport]) -> None:
        del self._judging[key]
        if not task.cancelled():
            task.exception()  # whoever asked may have left; asked again, it is judged again

    async def _forget(self, dataset_id: str) -> None:
        await self._blobs.delete(_rows_key(dataset_id))
        await self._blobs.delete(_original_key(dataset_id))


def _rows_key(dataset_id: str) -> str:
    return f"datasets/{dataset_id}/rows"


def _original_key(dataset_id: str) -> str:
    return f"datasets/{dataset_id}/original"


def _digest(file: BinaryIO) -> tuple[str, int]:
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(CHUNK_BYTES):
        digest.update(piece)
    return digest.hexdigest(), file.tell()


def _check_room(size: int, room: int | None) -> None:
    if room is not None and size > room:
        refuse_to_store("The dataset, with its rows as they are kept,", size=size, room=room)


def _write_rows(file: BinaryIO, source: Source, bounds: Bounds, kept: BinaryIO) -> Reading:
    reading = Reading(file, source, bounds)
    size = 0
    with closing(reading.rows()) as rows:
        for row in rows:
            text = json.dumps({"line": row.line, "fields": row.fields}, ensure_ascii=False) + "\n"
            size += kept.write(text.encode())
            if size > bounds.text_bytes:
                raise refused(f"the rows are larger than {bounds.text_bytes:,} bytes. Send fewer.", line=row.line)
    kept.seek(0)
    return reading


def _parsed(file: BinaryIO) -> Iterator[Row]:
    file.seek(0)
    for line in file:
        content = json.loads(line)
        yield Row(content["line"], content["fields"])


def _picked(file: BinaryIO, numbers: list[int]) -> list[DatasetRow]:
    """Return the rows of these numbers, which are in order; the others are passed over unread."""
    picked: list[DatasetRow] = []
    if not numbers:
        return picked
    for number, line in enumerate(file):
        if number == numbers[len(picked)]:
            picked.append(DatasetRow.model_validate_json(line))
            if len(picked) == len(numbers):
                break
    return picked

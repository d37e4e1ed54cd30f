"""Writes what came of a batch's lines into two files, in the order of the lines: answers, and errors."""

import asyncio
import json
import tempfile
from collections.abc import Sequence
from typing import Any, BinaryIO

from hunmin_contracts.ids import FileId
from hunmin_kit.blobs import Blobs
from hunmin_kit.data import Database
from hunmin_kit.events import Events

from hunmin_gateway.batches.batch import ClaimedBatch
from hunmin_gateway.batches.states import Status
from hunmin_gateway.batches.store import Batches
from hunmin_gateway.files.store import Files, blob_key, keep
from hunmin_gateway.tables import BatchLine

_PAGE = 500  # lines in memory at a time
_UNDONE = {
    Status.CANCELLED: ("batch_cancelled", "The batch was cancelled before this request was made."),
    Status.EXPIRED: ("batch_expired", "The batch's time was over before this request could be made."),
}


class Results:
    """Writes them, and ends the batch with them."""

    def __init__(self, database: Database, events: Events, blobs: Blobs) -> None:
        self._database = database
        self._events = events
        self._blobs = blobs

    async def write(self, held: ClaimedBatch) -> None:
        """End a batch of which no line runs any more. If the claim is lost meanwhile, nothing is left of the files."""
        async with self._database.session() as session:
            if not await Batches(session, self._events).close_lines(held):
                return
        with tempfile.TemporaryFile() as answers, tempfile.TemporaryFile() as errors:
            if held.has_run:
                await self._collect(held, answers, errors)
            kept = {
                name: (await keep(self._blobs, file), size)
                for name, file in (("output", answers), ("error", errors))
                if (size := await asyncio.to_thread(_rewound, file))
            }
        is_ended = False
        try:
            is_ended = await self._end(held, kept)
        finally:
            if not is_ended:
                for file_id, _ in kept.values():
                    await self._blobs.delete(blob_key(file_id))

    async def _collect(self, held: ClaimedBatch, answers: BinaryIO, errors: BinaryIO) -> None:
        last = 0
        while True:
            async with self._database.session() as session:
                lines = await Batches(session, self._events).lines(held.id, after=last, limit=_PAGE)
            if not lines:
                return
            await asyncio.to_thread(_write, held, lines, answers, errors)
            last = lines[-1].number

    async def _end(self, held: ClaimedBatch, kept: dict[str, tuple[FileId, int]]) -> bool:
        async with self._database.session() as session:
            ids = {f"{name}_file_id": kept[name][0] if name in kept else None for name in ("output", "error")}
            if not await Batches(session, self._events).end(held, **ids):
                return False
            for name, (file_id, size) in kept.items():
                filename = f"{held.id}_{name}.jsonl"
                await Files(session).add(
                    file_id,
                    account_id=held.account_id,
                    project_id=held.project_id,
                    purpose="batch_output",
                    filename=filename,
                    size_bytes=size,
                )
        return True


def _rewound(file: BinaryIO) -> int:
    size = file.tell()
    file.seek(0)
    return size


def _write(held: ClaimedBatch, lines: Sequence[BatchLine], answers: BinaryIO, errors: BinaryIO) -> None:
    for line in lines:
        is_answer = line.status_code is not None and line.status_code < 400
        (answers if is_answer else errors).write(_written(held, line).encode() + b"\n")


def _written(held: ClaimedBatch, line: BatchLine) -> str:
    """Return a line of a file. The body is put in as it is: there is no need to read it."""
    head = {"id": f"batch_req_{held.id.removeprefix('batch_')}{line.number:06x}", "custom_id": line.custom_id}
    if line.status_code is None:
        code, message = _UNDONE[Status(held.ends_as)]
        return _json(head | {"response": None, "error": {"code": code, "message": message}})
    answer = _json({"status_code": line.status_code, "request_id": line.request_id})
    return f'{_json(head)[:-1]}, "response": {answer[:-1]}, "body": {line.response}}}, "error": null}}'


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)

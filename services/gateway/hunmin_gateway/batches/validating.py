"""Validates the file of a batch, and makes each of its lines a row."""

import asyncio
from typing import BinaryIO

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_kit.blobs import Blobs
from hunmin_kit.data import Database
from hunmin_kit.events import Events

from hunmin_gateway.batches.batch import ClaimedBatch, Dialect, LineError
from hunmin_gateway.batches.reading import InputFile
from hunmin_gateway.batches.store import Batches
from hunmin_gateway.files.store import blob_key

_MAX_ATTEMPTS = 5
_GONE = LineError("file_not_found", "The file was deleted before the batch was validated. Upload it again.")
_DEADLY = LineError("unreadable_file", "The file cannot be read: the gateway ended each time that it tried.")


class Validation:
    """Lets batches run whose file is right, and ends the others."""

    def __init__(self, database: Database, events: Events, blobs: Blobs, dialect: Dialect) -> None:
        self._database = database
        self._events = events
        self._blobs = blobs
        self._dialect = dialect

    async def validate(self, held: ClaimedBatch) -> None:
        """Read the whole file. If the claim is lost meanwhile, whoever has it reads it again."""
        if held.attempts > _MAX_ATTEMPTS:
            await self._fail(held, [_DEADLY])
            return
        try:
            async with self._blobs.open(blob_key(held.input_file_id)) as content:
                await self._read(held, content)
        except HunminError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            await self._fail(held, [_GONE])

    async def _read(self, held: ClaimedBatch, content: BinaryIO) -> None:
        file = InputFile(content, held.endpoint, self._dialect)
        async with self._database.session() as session:
            is_ours = await Batches(session, self._events).forget_lines(held)  # of whoever began before
        while is_ours and not file.is_read:
            lines = await asyncio.to_thread(file.next_lines)
            if not file.errors:
                async with self._database.session() as session:
                    is_ours = await Batches(session, self._events).add_lines(held, lines)
        if not is_ours:
            return
        if file.errors:
            await self._fail(held, file.errors)
            return
        async with self._database.session() as session:
            await Batches(session, self._events).start(held, file.count)

    async def _fail(self, held: ClaimedBatch, errors: list[LineError]) -> None:
        async with self._database.session() as session:
            await Batches(session, self._events).fail(held, errors)

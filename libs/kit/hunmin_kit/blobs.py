"""Files by key: a folder on a laptop, an object store in a cluster. Neither knows what it keeps.

A put is whole or not there at all, and replaces what was there. Everything that blocks runs in threads.
"""

import asyncio
import io
import os
import re
import secrets
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from hunmin_contracts.errors import ErrorCode, HunminError

_PIECE_BYTES = 2**20
_KEY = re.compile(r"[a-z0-9_-][a-z0-9._-]*(/[a-z0-9_-][a-z0-9._-]*)*")


class Blobs(Protocol):
    """The port. A key is lower-case words with slashes between them, no part of it beginning with a dot."""

    async def put(self, key: str, content: bytes | memoryview) -> None:
        """Keep `content` under `key`."""

    async def put_file(self, key: str, file: BinaryIO) -> None:
        """Keep what `file` holds from where it stands, a piece in memory at a time."""

    async def get(self, key: str) -> bytes:
        """Return what is kept under `key`; `not_found` if nothing is."""

    def open(self, key: str) -> AbstractAsyncContextManager[BinaryIO]:
        """Enter to read what is kept under `key` piece by piece, in a thread; `not_found` if nothing is."""

    async def exists(self, key: str) -> bool:
        """Say whether something is kept under `key`."""

    async def delete(self, key: str) -> None:
        """Forget what is kept under `key`, if anything is."""


def open_blobs(url: str | None, *, home: Path) -> Blobs:
    """Return the store at an fsspec URL such as `s3://bucket/prefix`; None: the folder `blobs` under `home`."""
    return FolderBlobs(home / "blobs") if url is None else ObjectBlobs(url)


class FolderBlobs:
    """A file per key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, key: str, content: bytes | memoryview) -> None:
        """See Blobs: written beside its place, then renamed into it."""
        await asyncio.to_thread(self._put, self._path(key), lambda place: place.write(content))

    async def put_file(self, key: str, file: BinaryIO) -> None:
        """See Blobs: as `put`."""
        copy = partial(shutil.copyfileobj, file, length=_PIECE_BYTES)
        await asyncio.to_thread(self._put, self._path(key), copy)

    async def get(self, key: str) -> bytes:
        """See Blobs."""
        try:
            return await asyncio.to_thread(self._path(key).read_bytes)
        except FileNotFoundError:
            raise _missing(key) from None

    @asynccontextmanager
    async def open(self, key: str) -> AsyncGenerator[BinaryIO, None]:
        """See Blobs."""
        try:
            file = await asyncio.to_thread(self._path(key).open, "rb")
        except FileNotFoundError:
            raise _missing(key) from None
        with file:
            yield file

    async def exists(self, key: str) -> bool:
        """See Blobs."""
        return await asyncio.to_thread(self._path(key).is_file)

    async def delete(self, key: str) -> None:
        """See Blobs."""
        await asyncio.to_thread(self._path(key).unlink, missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / _checked(key)

    def _put(self, path: Path, write: Callable[[BinaryIO], object]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            with temporary.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())  # before anything, such as a row in a database, can refer to it
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


class ObjectBlobs:
    """An object per key, in whatever fsspec reaches; the credentials come from where its driver looks for them."""

    def __init__(self, url: str) -> None:
        """Raise ImportError if the driver for this kind of URL is not installed."""
        import fsspec  # a folder needs none of it

        self._files: Any
        self._files, self._root = fsspec.url_to_fs(url)

    async def put(self, key: str, content: bytes | memoryview) -> None:
        """See Blobs: an object store's own promise."""
        await asyncio.to_thread(self._files.pipe_file, self._path(key), bytes(content))

    async def put_file(self, key: str, file: BinaryIO) -> None:
        """See Blobs: in parts, which become an object when the last is there."""
        await asyncio.to_thread(self._put_file, self._path(key), file)

    async def get(self, key: str) -> bytes:
        """See Blobs."""
        try:
            content: bytes = await asyncio.to_thread(self._files.cat_file, self._path(key))
        except FileNotFoundError:
            raise _missing(key) from None
        return content

    @asynccontextmanager
    async def open(self, key: str) -> AsyncGenerator[BinaryIO, None]:
        """See Blobs: it reads ahead by some megabytes."""
        try:
            raw = await asyncio.to_thread(self._files.open, self._path(key), "rb")
        except FileNotFoundError:
            raise _missing(key) from None
        file = io.BufferedReader(raw, _PIECE_BYTES)  # fsspec's own readline takes no limit
        try:
            yield file
        finally:
            await asyncio.to_thread(file.close)

    async def exists(self, key: str) -> bool:
        """See Blobs."""
        return bool(await asyncio.to_thread(self._files.isfile, self._path(key)))

    async def delete(self, key: str) -> None:
        """See Blobs."""
        try:
            await asyncio.to_thread(self._files.rm_file, self._path(key))
        except FileNotFoundError:
            return

    def _put_file(self, path: str, file: BinaryIO) -> None:
        upload = self._files.open(path, "wb", autocommit=False)
        try:
            shutil.copyfileobj(file, upload, _PIECE_BYTES)
            upload.close()  # sends what is left; only the commit makes an object of it
        except BaseException:
            upload.discard()
            raise
        upload.commit()

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{_checked(key)}"


def _checked(key: str) -> str:
    if _KEY.fullmatch(key) is None:
        raise ValueError(f"{key!r} is no key of a blob")
    return key


def _missing(key: str) -> HunminError:
    return HunminError(ErrorCode.NOT_FOUND, f"The file {key} is not in the blob store: it was deleted, or never put.")

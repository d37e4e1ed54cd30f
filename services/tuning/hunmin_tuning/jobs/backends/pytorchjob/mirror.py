"""A job's folder and its copy in the blob store: how a pod gets what it is told, and the service what it leaves.

One side writes at a time: the service before a job is started, then the pod of the first worker. Whatever moment a
reader comes at, the copy is one that a trainer can go on from: a checkpoint is there after the metrics that it vouches
for, the result last.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import BinaryIO, TypeVar

import structlog
from botocore.exceptions import BotoCoreError  # what s3fs raises when nobody answers, after some retries of its own
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import JobId
from hunmin_contracts.schema import Schema
from hunmin_kit.blobs import Blobs

from hunmin_tuning.jobs.backends.backend import LOG

T = TypeVar("T")
CHECKPOINT = "checkpoint/"
_RETRY_S = 1.0
_SMALL_BYTES = 2**22
_GROWING = ("metrics.jsonl", LOG)
_LAST = "result.json"
_log = structlog.get_logger()


class Index(Schema):
    """Which files the copy has, each with a mark that is another when its content may be.

    `starts` counts how often the trainer was started in the cluster without coming to an end that was meant;
    `exit_code` is how it ended at last.
    """

    files: dict[str, str] = {}
    starts: int = 0
    exit_code: int | None = None


class Mirror:
    """The copy of one job's folder. Outages of the blob store are waited out for `patience_s`, then `unavailable`."""

    def __init__(self, blobs: Blobs, job_id: JobId, folder: Path, *, patience_s: float) -> None:
        self._blobs = blobs
        self._prefix = f"tuning-jobs/{job_id.lower()}"
        self._folder = folder
        self._patience_s = patience_s
        self._alike: dict[str, tuple[str, str]] = {}  # marks in the copy and in the folder of what is the same in both

    async def index(self) -> Index:
        """Return what the copy has; nothing if there is none."""
        return await patiently(self._index, self._patience_s)

    async def pull(self, *, leave: str | None = None) -> Index:
        """Bring the folder up to the copy, but for the files under `leave`; return what the copy has."""
        return await patiently(lambda: self._pull(leave), self._patience_s)

    async def push(self, index: Index) -> Index:
        """Bring the copy up to the folder, with what else `index` says; return what the copy has now."""
        return await patiently(lambda: self._push(index), self._patience_s)

    async def delete(self) -> None:
        """Remove the copy."""
        index = await self.index()
        for name in index.files:
            await self._blobs.delete(self._key(name))
        await self._blobs.delete(self._index_key)
        self._alike = {}

    async def _index(self) -> Index:
        try:
            return Index.model_validate_json(await self._blobs.get(self._index_key))
        except HunminError as error:
            if error.code != ErrorCode.NOT_FOUND:
                raise
            return Index()

    async def _pull(self, leave: str | None) -> Index:
        index = await self._index()
        for name in _in_order(index.files):
            mark = index.files[name]
            if (leave is None or not name.startswith(leave)) and self._alike.get(name, ("", ""))[0] != mark:
                async with self._blobs.open(self._key(name)) as content:  # its key refuses a path that leads elsewhere
                    self._alike[name] = mark, await asyncio.to_thread(_write, self._folder / name, content)
        return index

    async def _push(self, index: Index) -> Index:
        files: dict[str, BinaryIO] = {}
        marks = dict(index.files)
        try:
            # Opened last, a file that grows has all that those opened before say it has; and it is put first.
            for name in reversed(_in_order(self._names())):
                files[name] = (self._folder / name).open("rb")
            for name in reversed(files):
                mark = _mark(files[name])
                if self._alike.get(name, ("", ""))[1] != mark:
                    await self._put(name, files[name])
                    self._alike[name] = mark, mark
                marks[name] = self._alike[name][0]
        finally:
            for file in files.values():
                file.close()
        pushed = index.model_copy(update={"files": marks})
        await self._blobs.put(self._index_key, pushed.model_dump_json().encode())
        return pushed

    async def _put(self, name: str, file: BinaryIO) -> None:
        if os.fstat(file.fileno()).st_size < _SMALL_BYTES:  # one request; a file in parts takes three
            await self._blobs.put(self._key(name), file.read())
        else:
            await self._blobs.put_file(self._key(name), file)

    def _names(self) -> list[str]:
        paths = (path for path in self._folder.rglob("*") if path.is_file() and path.suffix != ".part")
        return [path.relative_to(self._folder).as_posix() for path in paths]

    def _key(self, name: str) -> str:
        return f"{self._prefix}/files/{name}"

    @property
    def _index_key(self) -> str:
        return f"{self._prefix}/index"


async def patiently(work: Callable[[], Awaitable[T]], patience_s: float, *outages: type[Exception]) -> T:
    """Do `work`, again and again for `patience_s` while it fails by an outage; then that is `unavailable`."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return await work()
        except (OSError, BotoCoreError, *outages) as error:
            if time.monotonic() >= deadline:
                message = f"What tuning jobs in the cluster need did not answer for {patience_s:.0f} s: {error}"
                raise HunminError(ErrorCode.UNAVAILABLE, message) from error
            _log.warning("tuning.cluster.unreachable", error=str(error))
            await asyncio.sleep(_RETRY_S)


def _in_order(names: Collection[str]) -> list[str]:
    return sorted(names, key=lambda name: (name == _LAST, name not in _GROWING, name))


def _mark(file: BinaryIO) -> str:
    status = os.fstat(file.fileno())
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"


def _write(path: Path, content: BinaryIO) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        shutil.copyfileobj(content, file, 2**20)
        file.flush()
        mark = _mark(file)
    part.replace(path)
    return mark

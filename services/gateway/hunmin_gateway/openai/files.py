"""Files of the OpenAI dialect: the datasets of the account, each version a file, what jobs have measured, and batches'.

`file-` and the digits of a dataset's id name a file, so that no table keeps which is which. Only what batches read and
write are files of the gateway's own (files/).
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from pathlib import PurePath
from typing import Annotated, Literal, NoReturn

from fastapi import Form, Query, UploadFile
from hunmin_contracts.datasets import (
    DELETE,
    DESCRIBE,
    FILE,
    LIST,
    UPLOAD,
    DatasetInfo,
    DatasetRequest,
    Finding,
    ListRequest,
    UploadRequest,
)
from hunmin_contracts.errors import ErrorCode, HunminError, Problem
from hunmin_contracts.ids import DatasetId
from hunmin_contracts.schema import Schema
from hunmin_contracts.tenancy import Scope
from hunmin_kit.blobs import Blobs
from hunmin_kit.web import EventStream
from pydantic import BaseModel, Field
from starlette.responses import Response

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.batches.batch import MAX_FILE_BYTES
from hunmin_gateway.files.store import Files, add_file, blob_key, delete_file, is_stored
from hunmin_gateway.listing import read_all
from hunmin_gateway.openai.results import job_of_results, read_results
from hunmin_gateway.openai.router import PREFIX, openai_router
from hunmin_gateway.parts import Parts, PartsDep
from hunmin_gateway.principal import Principal
from hunmin_gateway.storing import StoringRoute
from hunmin_gateway.studio.uploads import pieces
from hunmin_gateway.tables import StoredFile
from hunmin_gateway.tuning_doors import name_like

router = openai_router()
uploads = openai_router(StoringRoute)

UPLOAD_PATH = f"{PREFIX}/files"
MAX_FILES = 10_000  # in one answer, OpenAI's
_ID = re.compile(r"file-([0-9a-f]{24})")
_MAX_FILENAME = 1000
_SHOWN_FINDINGS = 5
_PIECE_BYTES = 2**18

FileStatus = Literal["processed", "error"]
Purpose = Literal["fine-tune", "fine-tune-results", "batch", "batch_output"]


class FileObject(BaseModel):
    """A file. `status_details` says which lines are wrong where its status is `error`."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Purpose
    status: FileStatus = "processed"
    status_details: str | None = None
    expires_at: None = None

    @classmethod
    def of(cls, info: DatasetInfo) -> "FileObject":
        """Describe a dataset version."""
        wrong = what_is_wrong(info.findings)
        return cls(
            id=file_id_of(info.id),
            bytes=info.size_bytes,
            created_at=int(info.created_at.timestamp()),
            filename=info.filename or f"{info.name}-{info.version}.{info.format}",
            purpose="fine-tune",
            status="processed" if wrong is None else "error",
            status_details=wrong,
        )

    @classmethod
    def of_stored(cls, file: StoredFile) -> "FileObject":
        """Describe a file of the gateway's own."""
        purpose: Purpose = "batch" if file.purpose == "batch" else "batch_output"
        return cls(
            id=file.id,
            bytes=file.size_bytes,
            created_at=int(file.created_at.timestamp()),
            filename=file.filename,
            purpose=purpose,
        )


class FilePage(BaseModel):
    """Some files. `has_more`: others follow."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    has_more: bool


class FileDeleted(BaseModel):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class FileForm(Schema):
    """A file to keep."""

    file: UploadFile = Field(
        description='JSON Lines: `{"messages": […]}`, the last of them the assistant\'s, or `{"prompt", "completion"}`;'
        ' of a batch `{"custom_id", "method", "url", "body"}`.'
    )
    purpose: Literal["fine-tune", "batch"]


class FileQuery(Schema):
    """Which files to list."""

    after: str | None = None
    limit: Annotated[int, Query(ge=1, le=MAX_FILES)] = MAX_FILES
    order: Literal["asc", "desc"] = "desc"
    purpose: str | None = None


@uploads.post("/files", summary="Keep a file to tune with, or of a batch", dependencies=[requires(Scope.DATA)])
async def create(
    form: Annotated[FileForm, Form(media_type="multipart/form-data")], principal: PrincipalDep, parts: PartsDep
) -> FileObject:
    """Keep a file as the next version of the dataset that is named as the file is; a file that is there is found.

    A file that cannot be read at all is refused. One whose lines are wrong in part has the status `error`. One with the
    purpose `batch` is kept as it comes; it is read when a batch is made of it.
    """
    filename = (form.file.filename or "")[-_MAX_FILENAME:]
    file = form.file
    if form.purpose == "batch":
        return FileObject.of_stored(await _keep(file, filename or "batch.jsonl", principal, parts))

    async def send(room: int | None) -> DatasetInfo:
        request = UploadRequest(
            account_id=principal.account_id,
            name=name_like(PurePath(filename).stem) or "file",
            filename=filename or None,
            format="jsonl",
            max_stored_bytes=room,
        )
        return await parts.tuning.upload(UPLOAD, request, pieces(file))

    return FileObject.of(await parts.storage.keep(principal, file.size or 0, send))


@router.get("/files", summary="List your files", dependencies=[requires(Scope.READ)])
async def page(query: Annotated[FileQuery, Query()], principal: PrincipalDep, parts: PartsDep) -> FilePage:
    """List the files of your account, every dataset version one, by the time they came. Results are with their jobs."""
    files = await _all_files(query.purpose, principal, parts)
    files.sort(key=lambda file: (file.created_at, file.id), reverse=query.order == "desc")
    start = 0
    if query.after is not None:
        places = {file.id: place for place, file in enumerate(files)}
        if query.after not in places:
            message = f"Parameter after: there is no file {query.after[:60]!r}. Send the last id of the page before."
            raise HunminError(ErrorCode.INVALID_PARAMETER, message, param="after")
        start = places[query.after] + 1
    end = start + query.limit
    return FilePage(data=files[start:end], has_more=end < len(files))


@router.get("/files/{file_id}", summary="Describe a file", dependencies=[requires(Scope.READ)])
async def retrieve(file_id: str, principal: PrincipalDep, parts: PartsDep) -> FileObject:
    """Describe one file of your account."""
    if (job_id := job_of_results(file_id)) is not None:
        job, content = await read_results(job_id, principal, parts)
        return FileObject(
            id=file_id,
            bytes=len(content),
            created_at=int((job.ended_at or job.created_at).timestamp()),
            filename=f"{job.request.name}-metrics.csv",
            purpose="fine-tune-results",
        )
    if is_stored(file_id):
        return FileObject.of_stored(await _find_stored(file_id, principal, parts))
    return FileObject.of(await _find(file_id, principal, parts))


@router.get(
    "/files/{file_id}/content", response_class=Response, summary="Read a file", dependencies=[requires(Scope.READ)]
)
async def content(file_id: str, principal: PrincipalDep, parts: PartsDep) -> Response:
    """Return a file as it came."""
    if (job_id := job_of_results(file_id)) is not None:
        return Response((await read_results(job_id, principal, parts))[1], media_type="text/csv")
    if is_stored(file_id):
        file = await _find_stored(file_id, principal, parts)
        return _stream(_pieces_of_blob(parts.blobs, file.id), file.size_bytes)
    info = await _find(file_id, principal, parts)
    return _stream(_pieces(info, principal, parts), info.size_bytes)


@router.delete("/files/{file_id}", summary="Delete a file", dependencies=[requires(Scope.DATA)])
async def delete(file_id: str, principal: PrincipalDep, parts: PartsDep) -> FileDeleted:
    """Delete a file. Jobs and batches that have begun go on."""
    if job_of_results(file_id) is not None:
        raise HunminError(ErrorCode.INVALID_REQUEST, "The results of a job stay with the job: they cannot be deleted.")
    if is_stored(file_id):
        await delete_file(parts.database, parts.blobs, principal, file_id)
    else:
        await parts.tuning.call(DELETE, _named(file_id, principal))
    return FileDeleted(id=file_id)


def file_id_of(dataset_id: str) -> str:
    """Return the id under which a dataset version is a file."""
    return "file-" + dataset_id.removeprefix("ds_")


def dataset_id_of(file_id: str) -> DatasetId:
    """Return the id of the dataset version; `not_found` if this is no id of a file."""
    found = _ID.fullmatch(file_id)
    if found is None:
        raise HunminError(ErrorCode.NOT_FOUND, f"There is no file {file_id[:60]!r} in this account.", param="file_id")
    return DatasetId("ds_" + found[1])


def what_is_wrong(findings: list[Finding]) -> str | None:
    """Return what keeps jobs from using these rows, with the lines; None where nothing does."""
    errors = [each for each in findings if each.severity == "error"]
    told = [_told(each) for each in errors[:_SHOWN_FINDINGS]]
    rest = len(errors) - len(told)
    return " ".join(told + ([f"And {rest} more kinds of errors."] if rest > 0 else [])) or None


def _told(finding: Finding) -> str:
    lines = ", ".join(map(str, finding.lines))
    more = f" and {finding.count - len(finding.lines):,} more" if finding.count > len(finding.lines) else ""
    where = f"{'Line' if finding.count == 1 else 'Lines'} {lines}{more}: " if lines else ""
    return where + finding.message


async def _all_files(purpose: str | None, principal: Principal, parts: Parts) -> list[FileObject]:
    files: list[FileObject] = []
    if purpose in (None, "fine-tune"):
        files += map(FileObject.of, await _all_datasets(principal, parts))
    async with parts.database.session() as session:
        stored = await Files(session).list(principal, limit=MAX_FILES)
    return files + [FileObject.of_stored(file) for file in stored if purpose in (None, file.purpose)]


async def _all_datasets(principal: Principal, parts: Parts) -> list[DatasetInfo]:
    return await read_all(
        lambda after: parts.tuning.call(LIST, ListRequest(account_id=principal.account_id, limit=200, after=after))
    )


async def _keep(file: UploadFile, filename: str, principal: Principal, parts: Parts) -> StoredFile:
    size = file.size or 0
    if size > MAX_FILE_BYTES:
        raise HunminError(
            ErrorCode.TOO_LARGE,
            f"A file of a batch has at most {MAX_FILE_BYTES:,} bytes, and this one {size:,}. Divide it into several.",
            param="file",
        )
    if not size:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER, "Parameter file: it is empty. Write a request a line.", param="file"
        )

    async def add(_: int | None) -> StoredFile:
        return await add_file(
            parts.database, parts.blobs, principal, content=file.file, filename=filename, size_bytes=size
        )

    return await parts.storage.keep(principal, size, add)


async def _find_stored(file_id: str, principal: Principal, parts: Parts) -> StoredFile:
    async with parts.database.session() as session:
        return await Files(session).find(principal, file_id)


async def _find(file_id: str, principal: Principal, parts: Parts) -> DatasetInfo:
    return await parts.tuning.call(DESCRIBE, _named(file_id, principal))


def _named(file_id: str, principal: Principal) -> DatasetRequest:
    return DatasetRequest(account_id=principal.account_id, reference=dataset_id_of(file_id))


class _FileStream(EventStream):
    media_type = "application/octet-stream"


def _stream(pieces: AsyncGenerator[bytes, None], size_bytes: int) -> Response:
    response = _FileStream(pieces, on_error=cut)
    response.headers["content-length"] = str(size_bytes)
    return response


def cut(problem: Problem) -> NoReturn:
    """Break the connection off: what came is shorter than was said, and nobody takes it for the file."""
    raise problem.error()


async def _pieces(info: DatasetInfo, principal: Principal, parts: Parts) -> AsyncGenerator[bytes, None]:
    request = DatasetRequest(account_id=principal.account_id, reference=info.id)
    async with parts.tuning.stream(FILE, request) as events:
        async for event in events:
            yield event.root.content


async def _pieces_of_blob(blobs: Blobs, file_id: str) -> AsyncGenerator[bytes, None]:
    async with blobs.open(blob_key(file_id)) as content:
        while piece := await asyncio.to_thread(content.read, _PIECE_BYTES):
            yield piece

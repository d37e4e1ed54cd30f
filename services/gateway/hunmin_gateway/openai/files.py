"""Files of the OpenAI dialect: the datasets of the account, each version a file, and what jobs have measured.

`file-` and the digits of a dataset's id name a file, so that no table keeps which is which.
"""

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
from hunmin_kit.web import EventStream
from pydantic import BaseModel, Field
from starlette.responses import Response

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.listing import read_all
from hunmin_gateway.openai.results import job_of_results, read_results
from hunmin_gateway.openai.router import PREFIX, openai_router
from hunmin_gateway.parts import Parts, PartsDep
from hunmin_gateway.principal import Principal
from hunmin_gateway.studio.uploads import pieces
from hunmin_gateway.tuning_doors import name_like

router = openai_router()

UPLOAD_PATH = f"{PREFIX}/files"
MAX_FILES = 10_000  # in one answer, OpenAI's
_ID = re.compile(r"file-([0-9a-f]{24})")
_MAX_FILENAME = 1000
_SHOWN_FINDINGS = 5

FileStatus = Literal["processed", "error"]
Purpose = Literal["fine-tune", "fine-tune-results"]


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
        description='JSON Lines: `{"messages": […]}`, the last of them the assistant\'s, or `{"prompt", "completion"}`.'
    )
    purpose: Literal["fine-tune"]


class FileQuery(Schema):
    """Which files to list."""

    after: str | None = None
    limit: Annotated[int, Query(ge=1, le=MAX_FILES)] = MAX_FILES
    order: Literal["asc", "desc"] = "desc"
    purpose: str | None = None


@router.post("/files", summary="Keep a file to tune with", dependencies=[requires(Scope.DATA)])
async def create(
    form: Annotated[FileForm, Form(media_type="multipart/form-data")], principal: PrincipalDep, parts: PartsDep
) -> FileObject:
    """Keep a file as the next version of the dataset that is named as the file is; a file that is there is found.

    A file that cannot be read at all is refused. One whose lines are wrong in part has the status `error`.
    """
    filename = (form.file.filename or "")[-_MAX_FILENAME:]
    request = UploadRequest(
        account_id=principal.account_id,
        name=name_like(PurePath(filename).stem) or "file",
        filename=filename or None,
        format="jsonl",
    )
    return FileObject.of(await parts.tuning.upload(UPLOAD, request, pieces(form.file)))


@router.get("/files", summary="List your files", dependencies=[requires(Scope.READ)])
async def page(query: Annotated[FileQuery, Query()], principal: PrincipalDep, parts: PartsDep) -> FilePage:
    """List the files of your account, every dataset version one, by the time they came. Results are with their jobs."""
    if query.purpose not in (None, "fine-tune"):
        return FilePage(data=[], has_more=False)
    infos = await _all_datasets(principal, parts)
    infos.sort(key=lambda info: (info.created_at, info.id), reverse=query.order == "desc")
    start = 0
    if query.after is not None:
        places = {file_id_of(info.id): place for place, info in enumerate(infos)}
        if query.after not in places:
            message = f"Parameter after: there is no file {query.after[:60]!r}. Send the last id of the page before."
            raise HunminError(ErrorCode.INVALID_PARAMETER, message, param="after")
        start = places[query.after] + 1
    end = start + query.limit
    return FilePage(data=[FileObject.of(info) for info in infos[start:end]], has_more=end < len(infos))


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
    return FileObject.of(await _find(file_id, principal, parts))


@router.get(
    "/files/{file_id}/content", response_class=Response, summary="Read a file", dependencies=[requires(Scope.READ)]
)
async def content(file_id: str, principal: PrincipalDep, parts: PartsDep) -> Response:
    """Return a file as it came."""
    if (job_id := job_of_results(file_id)) is not None:
        return Response((await read_results(job_id, principal, parts))[1], media_type="text/csv")
    info = await _find(file_id, principal, parts)
    response = _FileStream(_pieces(info, principal, parts), on_error=_cut)
    response.headers["content-length"] = str(info.size_bytes)
    return response


@router.delete("/files/{file_id}", summary="Delete a file", dependencies=[requires(Scope.DATA)])
async def delete(file_id: str, principal: PrincipalDep, parts: PartsDep) -> FileDeleted:
    """Delete a file. Jobs that have begun go on."""
    if job_of_results(file_id) is not None:
        raise HunminError(ErrorCode.INVALID_REQUEST, "The results of a job stay with the job: they cannot be deleted.")
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


async def _all_datasets(principal: Principal, parts: Parts) -> list[DatasetInfo]:
    return await read_all(
        lambda after: parts.tuning.call(LIST, ListRequest(account_id=principal.account_id, limit=200, after=after))
    )


async def _find(file_id: str, principal: Principal, parts: Parts) -> DatasetInfo:
    return await parts.tuning.call(DESCRIBE, _named(file_id, principal))


def _named(file_id: str, principal: Principal) -> DatasetRequest:
    return DatasetRequest(account_id=principal.account_id, reference=dataset_id_of(file_id))


class _FileStream(EventStream):
    media_type = "application/octet-stream"


def _cut(problem: Problem) -> NoReturn:
    """Break the connection off: what came is shorter than was said, and nobody takes it for the file."""
    raise problem.error()


async def _pieces(info: DatasetInfo, principal: Principal, parts: Parts) -> AsyncGenerator[bytes, None]:
    request = DatasetRequest(account_id=principal.account_id, reference=info.id)
    async with parts.tuning.stream(FILE, request) as events:
        async for event in events:
            yield event.root.content

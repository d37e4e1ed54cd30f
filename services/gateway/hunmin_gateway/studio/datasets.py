"""Datasets of the Studio dialect. Files are passed on as they come; the tuning service reads and judges them."""

from typing import Annotated

from fastapi import Form, Query, UploadFile
from hunmin_contracts.datasets import (
    DELETE,
    DESCRIBE,
    LIST,
    REPORT,
    ROWS,
    UPLOAD,
    DatasetFormat,
    DatasetInfo,
    DatasetName,
    DatasetReport,
    DatasetRequest,
    ListRequest,
    ReportQuestion,
    ReportRequest,
    RowsRequest,
    RowsResponse,
    UploadRequest,
)
from hunmin_contracts.ids import DatasetId
from hunmin_contracts.page import Page
from hunmin_contracts.schema import Schema
from hunmin_contracts.tenancy import Scope
from pydantic import Field

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.parts import Parts, PartsDep
from hunmin_gateway.principal import Principal
from hunmin_gateway.storing import StoringRoute
from hunmin_gateway.studio.router import PREFIX, studio_router
from hunmin_gateway.studio.uploads import CheckedForm, pieces

router = studio_router()
uploads = studio_router(StoringRoute)

UPLOAD_PATH = f"{PREFIX}/datasets"
_MAX_FILENAME = 1000


class DatasetPage(Page[DatasetInfo]):
    """Datasets by name, newest version first."""


class DatasetQuery(Schema):
    """Which datasets to list."""

    name: str | None = None
    limit: Annotated[int, Query(ge=1, le=200)] = 50
    cursor: str | None = None


class RowsQuery(Schema):
    """Which rows to read: some behind others, or with `seed` as many drawn at random."""

    limit: Annotated[int, Query(ge=1, le=200)] = 20
    offset: Annotated[int, Query(ge=0, lt=2**31)] = 0
    seed: Annotated[int | None, Query(ge=0, lt=2**63)] = None


class DatasetForm(Schema):
    """A dataset to keep, and under which name."""

    file: UploadFile = Field(description="CSV, TSV, JSON Lines or Parquet; text in UTF-8, CP949 or UTF-16.")
    name: DatasetName = Field(description="The next version of this name is made, unless one has this file already.")
    format: DatasetFormat | None = Field(default=None, description="Where the file's name does not tell it.")


@uploads.post("/datasets", status_code=201, summary="Keep a dataset", dependencies=[requires(Scope.DATA), CheckedForm])
async def add(
    form: Annotated[DatasetForm, Form(media_type="multipart/form-data")], principal: PrincipalDep, parts: PartsDep
) -> DatasetInfo:
    """Keep a file of labelled rows as the next version of its name; a file that a version has already gives that one.

    A file that cannot be read is a 400 with `line` and `column` in its details. Rows that are wrong are findings.
    """
    return await keep_dataset(form.file, form.name, principal, parts, file_format=form.format)


async def keep_dataset(
    file: UploadFile, name: str, principal: Principal, parts: Parts, *, file_format: DatasetFormat | None = None
) -> DatasetInfo:
    """Keep the file as the next version of `name`, if the account's limit has room for it."""

    async def send(room: int | None) -> DatasetInfo:
        request = UploadRequest(
            account_id=principal.account_id,
            name=name,
            filename=(file.filename or "")[-_MAX_FILENAME:] or None,
            format=file_format,
            max_stored_bytes=room,
        )
        return await parts.tuning.upload(UPLOAD, request, pieces(file))

    return await parts.storage.keep(principal, file.size or 0, send)


@router.get("/datasets", summary="List your datasets", dependencies=[requires(Scope.READ)])
async def page(query: Annotated[DatasetQuery, Query()], principal: PrincipalDep, parts: PartsDep) -> DatasetPage:
    """List the datasets of your account by name, newest version first."""
    after = None if query.cursor is None else DatasetId(query.cursor)
    request = ListRequest(account_id=principal.account_id, name=query.name, limit=query.limit, after=after)
    found = await parts.tuning.call(LIST, request)
    return DatasetPage(data=found.data, next_cursor=found.data[-1].id if found.has_more else None)


@router.get("/datasets/{reference}", summary="Describe a dataset", dependencies=[requires(Scope.READ)])
async def describe(reference: str, principal: PrincipalDep, parts: PartsDep) -> DatasetInfo:
    """Describe `name@version`, the newest version of `name`, or an id."""
    return await parts.tuning.call(DESCRIBE, _named(reference, principal))


@router.post("/datasets/{reference}/report", summary="Judge a dataset for a job", dependencies=[requires(Scope.READ)])
async def report(reference: str, body: ReportQuestion, principal: PrincipalDep, parts: PartsDep) -> DatasetReport:
    """Say what a job with this template would make of every row, and whether it could start."""
    asked = {field: getattr(body, field) for field in ReportQuestion.model_fields}
    request = ReportRequest(account_id=principal.account_id, reference=reference, **asked)
    return await parts.tuning.call(REPORT, request)


@router.get("/datasets/{reference}/rows", summary="Read rows of a dataset", dependencies=[requires(Scope.READ)])
async def rows(
    reference: str, query: Annotated[RowsQuery, Query()], principal: PrincipalDep, parts: PartsDep
) -> RowsResponse:
    """Read some rows with their lines, from a place or drawn by a seed."""
    request = RowsRequest(
        account_id=principal.account_id, reference=reference, limit=query.limit, offset=query.offset, seed=query.seed
    )
    return await parts.tuning.call(ROWS, request)


@router.delete(
    "/datasets/{reference}", status_code=204, summary="Delete a dataset", dependencies=[requires(Scope.DATA)]
)
async def delete(reference: str, principal: PrincipalDep, parts: PartsDep) -> None:
    """Delete `name@version`, the newest version of `name`, or an id. Jobs that have begun go on."""
    await parts.tuning.call(DELETE, _named(reference, principal))


def _named(reference: str, principal: Principal) -> DatasetRequest:
    return DatasetRequest(account_id=principal.account_id, reference=reference)

"""The endpoints of `hunmin_contracts.datasets`, and the preview of a template."""

import base64
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import BinaryIO

from fastapi import APIRouter
from hunmin_contracts.datasets import (
    DELETE,
    DESCRIBE,
    FILE,
    LIST,
    REPORT,
    ROWS,
    UPLOAD,
    DatasetInfo,
    DatasetPage,
    DatasetPiece,
    DatasetReport,
    DatasetRequest,
    FilePiece,
    ListRequest,
    ReportRequest,
    RowsRequest,
    RowsResponse,
    UploadRequest,
)
from hunmin_contracts.schema import Empty
from hunmin_contracts.storage import STORAGE, StorageRequest, StorageUse
from hunmin_contracts.tuning_preview import PREVIEW, Preview, PreviewRequest
from hunmin_kit.web import serve

from hunmin_tuning.datasets import preview as previews
from hunmin_tuning.datasets.library import Datasets


def routes(datasets: Datasets) -> APIRouter:
    """Mount every endpoint on these datasets."""
    router = APIRouter()

    @serve(router, UPLOAD)
    async def upload(request: UploadRequest, file: BinaryIO) -> DatasetInfo:
        return await datasets.add(request, file)

    @serve(router, LIST)
    async def list_page(request: ListRequest) -> DatasetPage:
        return await datasets.page(request)

    @serve(router, DESCRIBE)
    async def describe(request: DatasetRequest) -> DatasetInfo:
        return await datasets.describe(request.account_id, request.reference)

    @serve(router, REPORT)
    async def report(request: ReportRequest) -> DatasetReport:
        return await datasets.report(request)

    @serve(router, FILE)
    async def file(request: DatasetRequest) -> AsyncGenerator[DatasetPiece, None]:
        async with aclosing(datasets.file(request.account_id, request.reference)) as pieces:
            async for piece in pieces:
                yield DatasetPiece(FilePiece(content=base64.b64encode(piece)))

    @serve(router, ROWS)
    async def rows(request: RowsRequest) -> RowsResponse:
        return RowsResponse(rows=await datasets.some_rows(request))

    @serve(router, PREVIEW)
    async def preview(request: PreviewRequest) -> Preview:
        return await previews.preview(datasets, request)

    @serve(router, DELETE)
    async def delete(request: DatasetRequest) -> Empty:
        await datasets.delete(request.account_id, request.reference)
        return Empty()

    @serve(router, STORAGE)
    async def storage(request: StorageRequest) -> StorageUse:
        return StorageUse(stored_bytes=await datasets.stored_bytes(request.account_id))

    return router

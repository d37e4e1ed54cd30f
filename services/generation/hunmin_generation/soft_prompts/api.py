"""The endpoints of `hunmin_contracts.soft_prompts`."""

import mmap
import os
from typing import BinaryIO

from fastapi import APIRouter
from hunmin_contracts.schema import Empty
from hunmin_contracts.soft_prompts import (
    DELETE,
    DESCRIBE,
    IMPORT,
    LIST,
    PROMOTE,
    READ,
    DeleteRequest,
    ImportRequest,
    ListRequest,
    PromoteRequest,
    SoftPromptFile,
    SoftPromptInfo,
    SoftPromptPage,
    SoftPromptRequest,
)
from hunmin_contracts.storage import STORAGE, StorageRequest, StorageUse
from hunmin_kit.web import serve

from hunmin_generation.soft_prompts.library import SoftPrompts


def routes(soft_prompts: SoftPrompts) -> APIRouter:
    """Mount every endpoint on these soft prompts."""
    router = APIRouter()

    @serve(router, IMPORT)
    async def import_file(request: ImportRequest, file: BinaryIO) -> SoftPromptInfo:
        return await soft_prompts.add(request, mapped(file))

    @serve(router, LIST)
    async def list_page(request: ListRequest) -> SoftPromptPage:
        return await soft_prompts.page(request)

    @serve(router, DESCRIBE)
    async def describe(request: SoftPromptRequest) -> SoftPromptInfo:
        return await soft_prompts.describe(request.account_id, request.reference)

    @serve(router, READ)
    async def read(request: SoftPromptRequest) -> SoftPromptFile:
        return await soft_prompts.read(request.account_id, request.reference)

    @serve(router, PROMOTE)
    async def promote(request: PromoteRequest) -> SoftPromptInfo:
        return await soft_prompts.promote(request.account_id, request.reference)

    @serve(router, DELETE)
    async def delete(request: DeleteRequest) -> Empty:
        await soft_prompts.delete(request.account_id, request.reference, force=request.force)
        return Empty()

    @serve(router, STORAGE)
    async def storage(request: StorageRequest) -> StorageUse:
        return StorageUse(stored_bytes=await soft_prompts.stored_bytes(request.account_id))

    return router


def mapped(file: BinaryIO) -> memoryview:
    """Return the file's bytes, mapped: the system takes them back, where an allocator keeps buffers of this size."""
    size = os.fstat(file.fileno()).st_size
    return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b"")

"""The soft prompts of the small generation service before which the tests' gateway stands, and its one model."""

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import BinaryIO

from fastapi import APIRouter
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import ModelInfo
from hunmin_contracts.ids import SoftPromptId
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
    Manifest,
    PromoteRequest,
    SoftPromptFile,
    SoftPromptInfo,
    SoftPromptPage,
    SoftPromptRequest,
)
from hunmin_contracts.storage import STORAGE, StorageRequest, StorageUse, refuse_to_store
from hunmin_kit.web import serve

CONTEXT = 64
MODEL = ModelInfo(
    name="team/parrot",
    digest="0" * 64,
    tokenizer_digest="1" * 64,
    d_model=8,
    embedding_std=0.02,
    architecture="parrot",
    context_length=CONTEXT,
    vocab_size=1,
    created=1_700_000_000,
)
POET = SoftPromptInfo(
    id=SoftPromptId("sp_1"),
    name="poet",
    version=1,
    model=MODEL.name,
    n_virtual=1,
    d_model=MODEL.d_model,
    dtype="float32",
    digest="2" * 64,
    size_bytes=1,
    manifest=Manifest(),
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)


@dataclass
class Shelf:
    """The soft prompts of the generation service, newest first; everyone has POET, which no list shows."""

    files: dict[tuple[str, str], SoftPromptFile] = field(default_factory=dict)
    imports: list[ImportRequest] = field(default_factory=list)

    def mount(self, router: APIRouter) -> None:
        """Offer them."""

        @serve(router, IMPORT)
        async def add(request: ImportRequest, file: BinaryIO) -> SoftPromptInfo:
            content = file.read()
            if content[:2] == b"PK":
                raise HunminError(ErrorCode.INVALID_REQUEST, "The file is a zip archive.", param="file")
            if request.max_stored_bytes is not None and len(content) > request.max_stored_bytes:
                refuse_to_store("The soft prompt", size=len(content), room=request.max_stored_bytes)
            self.imports.append(request)
            number = len(self.files) + 2
            made = {"id": f"sp_{number}", "name": request.name, "version": number, "size_bytes": len(content)}
            info = POET.model_copy(update=made)
            kept = SoftPromptFile(info=info, content=base64.b64encode(content))
            self.files = {(request.account_id, f"{request.name}@{number}"): kept} | self.files
            return info

        @serve(router, STORAGE)
        async def storage(request: StorageRequest) -> StorageUse:
            own = [file.info.size_bytes for (owner, _), file in self.files.items() if owner == request.account_id]
            return StorageUse(stored_bytes=sum(own))

        @serve(router, LIST)
        async def page(request: ListRequest) -> SoftPromptPage:
            own = [file.info for (owner, _), file in self.files.items() if owner == request.account_id]
            if request.after is not None:
                own = own[[info.id for info in own].index(request.after) + 1 :]
            return SoftPromptPage(data=own[: request.limit], has_more=len(own) > request.limit)

        @serve(router, DESCRIBE)
        async def describe(request: SoftPromptRequest) -> SoftPromptInfo:
            return POET if request.reference in (POET.name, POET.name + "@1") else self.find(request).info

        @serve(router, READ)
        async def read(request: SoftPromptRequest) -> SoftPromptFile:
            file = self.find(request)
            return SoftPromptFile(info=file.info, content=base64.b64encode(file.content))

        @serve(router, PROMOTE)
        async def promote(request: PromoteRequest) -> SoftPromptInfo:
            return self.change(request, is_promoted=True)

        @serve(router, DELETE)
        async def delete(request: DeleteRequest) -> Empty:
            info = self.find(request).info
            if info.is_promoted and not request.force:
                raise HunminError(ErrorCode.CONFLICT, "It is promoted.")
            del self.files[request.account_id, f"{info.name}@{info.version}"]
            return Empty()

    def find(self, request: SoftPromptRequest) -> SoftPromptFile:
        """Return the newest that is named."""
        for (owner, reference), file in self.files.items():
            if owner == request.account_id and request.reference in (reference, file.info.name):
                return file
        raise HunminError(ErrorCode.NOT_FOUND, f"There is no soft prompt {request.reference!r}.")

    def change(self, request: SoftPromptRequest, **values: object) -> SoftPromptInfo:
        """Give what is named these values."""
        file = self.find(request)
        info = file.info.model_copy(update=values)
        kept = file.model_copy(update={"info": info})
        self.files[request.account_id, f"{info.name}@{info.version}"] = kept
        return info

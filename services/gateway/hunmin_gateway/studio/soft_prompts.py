"""Soft prompts of the Studio dialect. Files are passed on as they are; the generation service judges them."""

import asyncio
import io
import zipfile
from collections.abc import Iterator
from typing import Annotated

from fastapi import Form, Query, UploadFile
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import SoftPromptId
from hunmin_contracts.page import Page
from hunmin_contracts.peft import CONFIG_FILE, NOTE_FILE, WEIGHTS_FILE, AdapterConfig, adapter_of
from hunmin_contracts.schema import Schema
from hunmin_contracts.soft_prompts import (
    DELETE,
    DESCRIBE,
    IMPORT,
    LIST,
    PROMOTE,
    READ,
    CompareBody,
    DeleteRequest,
    ImportRequest,
    ListRequest,
    PromoteRequest,
    SlotSizes,
    SoftPromptComparison,
    SoftPromptFile,
    SoftPromptInfo,
    SoftPromptName,
    SoftPromptRequest,
)
from hunmin_contracts.tenancy import Scope
from pydantic import Field, TypeAdapter, ValidationError
from starlette.responses import Response, StreamingResponse

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.listing import read_all
from hunmin_gateway.parts import Parts, PartsDep
from hunmin_gateway.principal import Principal
from hunmin_gateway.storing import StoringRoute
from hunmin_gateway.studio.comparison import compare
from hunmin_gateway.studio.router import PREFIX, studio_router
from hunmin_gateway.studio.uploads import CheckedForm, pieces

router = studio_router()
uploads = studio_router(StoringRoute)

UPLOAD_PATH = f"{PREFIX}/soft-prompts"
MAX_CONFIG_BYTES = 2**16
_TEMPLATE_NOTE = """# {name}: PEFT does not apply its template

This soft prompt was trained in the template below; PEFT has no templates, and puts all rows before the prompt.
If the template begins with its only slot, give PEFT the text behind the slot, with the fields filled in: that is the
same prompt. With slots elsewhere PEFT's answers differ from those of Hunmin Studio.
Slots take {slots} rows.

````
{template}
````
"""
_SLOTS = TypeAdapter[list[int]](SlotSizes)


class SoftPromptPage(Page[SoftPromptInfo]):
    """Soft prompts by name, newest version first."""


class PageQuery(Schema):
    """Which soft prompts to list."""

    name: str | None = None
    limit: Annotated[int, Query(ge=1, le=200)] = 50
    cursor: str | None = None


class DeleteQuery(Schema):
    """How to delete. `force`: also a version that is promoted."""

    force: bool = False


class SoftPromptForm(Schema):
    """A soft prompt to keep, and under which name."""

    file: UploadFile = Field(description="Safetensors with one tensor, `prompt_embeddings` [n_virtual, d_model].")
    name: SoftPromptName = Field(description="The next version of this name is made.")
    model: str = Field(description="The base model that it was trained for.")
    template: str | None = Field(
        default=None, max_length=20_000, description="Text with `{field}`s and slots `<|VIRTUAL_PROMPT_0|>`, …"
    )
    slots: str | None = Field(default=None, description="How many rows each slot takes, as `[2, 3]`.")
    config: UploadFile | None = Field(default=None, description="PEFT's `adapter_config.json`, for an adapter of its.")


@uploads.post(
    "/soft-prompts", status_code=201, summary="Keep a soft prompt", dependencies=[requires(Scope.DATA), CheckedForm]
)
async def add(
    form: Annotated[SoftPromptForm, Form(media_type="multipart/form-data")], principal: PrincipalDep, parts: PartsDep
) -> SoftPromptInfo:
    """Keep a soft prompt of our own, or a prompt-tuning or p-tuning adapter of PEFT, as the next version of its name.

    `template` and `slots` stand in for what the file does not say itself; without a template the rows come first.
    """
    request = ImportRequest(
        account_id=principal.account_id,
        name=form.name,
        model=form.model,
        template=form.template,
        slots=None if form.slots is None else _slots(form.slots),
        adapter=None if form.config is None else await _adapter(form.config),
    )

    async def send(room: int | None) -> SoftPromptInfo:
        bounded = request.model_copy(update={"max_stored_bytes": room})
        return await parts.generation.upload(IMPORT, bounded, pieces(form.file))

    return await parts.storage.keep(principal, form.file.size or 0, send)


@router.get("/soft-prompts", summary="List your soft prompts", dependencies=[requires(Scope.READ)])
async def page(query: Annotated[PageQuery, Query()], principal: PrincipalDep, parts: PartsDep) -> SoftPromptPage:
    """List the soft prompts of your account by name, newest version first."""
    after = None if query.cursor is None else SoftPromptId(query.cursor)
    request = ListRequest(account_id=principal.account_id, name=query.name, limit=query.limit, after=after)
    found = await parts.generation.call(LIST, request)
    return SoftPromptPage(data=found.data, next_cursor=found.data[-1].id if found.has_more else None)


@router.get("/soft-prompts/{reference}", summary="Describe a soft prompt", dependencies=[requires(Scope.READ)])
async def describe(reference: str, principal: PrincipalDep, parts: PartsDep) -> SoftPromptInfo:
    """Describe `name@version`, or what `name` alone means: its promoted version, or the newest where none is."""
    return await parts.generation.call(DESCRIBE, _named(reference, principal))


@router.get(
    "/soft-prompts/{reference}/file",
    response_class=Response,
    summary="Read a soft prompt's file",
    dependencies=[requires(Scope.READ)],
)
async def read(reference: str, principal: PrincipalDep, parts: PartsDep) -> Response:
    """Return the file as it was kept: safetensors with the manifest in its metadata."""
    found = await parts.generation.call(READ, _named(reference, principal))
    return Response(found.content, media_type="application/octet-stream", headers=_saved_as(found.info, "safetensors"))


@router.get(
    "/soft-prompts/{reference}/peft",
    response_class=StreamingResponse,
    summary="Read it as a PEFT adapter",
    dependencies=[requires(Scope.READ)],
)
async def read_peft(reference: str, principal: PrincipalDep, parts: PartsDep) -> StreamingResponse:
    """Return a zip of the folder that `PeftModel.from_pretrained` reads.

    PEFT has no templates: it puts the rows first. Where there is one, `README.md` in the zip holds it, and says what to
    do.
    """
    found = await parts.generation.call(READ, _named(reference, principal))
    return StreamingResponse(_zipped(found), media_type="application/zip", headers=_saved_as(found.info, "zip"))


@router.post("/soft-prompts/{reference}/promote", summary="Promote a soft prompt", dependencies=[requires(Scope.DATA)])
async def promote(reference: str, principal: PrincipalDep, parts: PartsDep) -> SoftPromptInfo:
    """Make the name alone mean `name@version`, from the next request on. Another version's promotion ends."""
    return await parts.generation.call(PROMOTE, PromoteRequest(account_id=principal.account_id, reference=reference))


@router.post("/soft-prompts/compare", summary="Compare soft prompts", dependencies=[requires(Scope.READ)])
async def compare_some(body: CompareBody, principal: PrincipalDep, parts: PartsDep) -> SoftPromptComparison:
    """Put 2 to 20 soft prompts beside the first: what they were made of, and how their jobs judged them.

    Scores are set against each other where both were judged on the same rows.
    """
    found = [parts.generation.call(DESCRIBE, _named(reference, principal)) for reference in body.references]
    return compare(await asyncio.gather(*found))


@router.delete(
    "/soft-prompts/{reference}", status_code=204, summary="Delete a soft prompt", dependencies=[requires(Scope.DATA)]
)
async def delete(
    reference: str, query: Annotated[DeleteQuery, Query()], principal: PrincipalDep, parts: PartsDep
) -> None:
    """Delete `name@version`, or what `name` alone means. Requests that use it go on to their end.

    A promoted version is a `conflict`, since whoever names it would be served another; with `force=true` it goes, and
    its name means the newest version that is left.
    """
    request = DeleteRequest(account_id=principal.account_id, reference=reference, force=query.force)
    await parts.generation.call(DELETE, request)


async def all_of(principal: Principal, parts: Parts) -> list[SoftPromptInfo]:
    """Return every soft prompt of the caller's account, by name, newest version first."""
    return await read_all(
        lambda after: parts.generation.call(LIST, ListRequest(account_id=principal.account_id, limit=200, after=after))
    )


async def find(reference: str, principal: Principal, parts: Parts) -> SoftPromptInfo | None:
    """Return what `reference` names among the soft prompts of the caller's account, or None."""
    if "/" in reference:  # of a base model's name, and in a path it would lead elsewhere
        return None
    try:
        return await parts.generation.call(DESCRIBE, _named(reference, principal))
    except HunminError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
        return None


def _named(reference: str, principal: Principal) -> SoftPromptRequest:
    return SoftPromptRequest(account_id=principal.account_id, reference=reference)


async def _adapter(config: UploadFile) -> AdapterConfig:
    content = await config.read(MAX_CONFIG_BYTES + 1)
    if len(content) > MAX_CONFIG_BYTES:
        raise HunminError(
            ErrorCode.TOO_LARGE,
            f"Parameter config has more than {MAX_CONFIG_BYTES} bytes. Send the {CONFIG_FILE} that PEFT saved.",
            param="config",
        )
    try:
        return AdapterConfig.model_validate_json(content)
    except ValidationError as error:
        wanted = f"is not the {CONFIG_FILE} of a prompt-tuning or p-tuning adapter of a causal model"
        raise _refused("config", wanted, error) from None


def _slots(text: str) -> list[int]:
    try:
        return _SLOTS.validate_json(text, strict=True)
    except ValidationError as error:
        raise _refused("slots", "is not a list of sizes such as [2, 3]", error) from None


def _refused(param: str, wanted: str, error: ValidationError) -> HunminError:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"])) or "its JSON"
    message = f"Parameter {param} {wanted} ({place}: {first['msg']})."
    return HunminError(ErrorCode.INVALID_PARAMETER, message, param=param)


def _saved_as(info: SoftPromptInfo, suffix: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{info.name}-{info.version}.{suffix}"'}


class _Sink(io.RawIOBase):
    """Takes what a zip archive writes, until it is taken away."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # zipfile writes bytes alone
        self._written.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        written, self._written = self._written, []
        return b"".join(written)


def _zipped(file: SoftPromptFile) -> Iterator[bytes]:
    info = file.info
    config = adapter_of(n_virtual=info.n_virtual, d_model=info.d_model, base_model=info.model).model_dump_json(indent=2)
    files = {CONFIG_FILE: config.encode(), WEIGHTS_FILE: file.content}
    if info.manifest.template is not None:
        files[NOTE_FILE] = _TEMPLATE_NOTE.format(
            name=f"{info.name}@{info.version}", slots=info.manifest.slots, template=info.manifest.template
        ).encode()
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
            yield sink.take()
    yield sink.take()

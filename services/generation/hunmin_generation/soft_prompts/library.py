"""Soft prompts from import to use: files are judged against their base model, kept, and lent to requests."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.events import Envelope, SoftPromptChanged
from hunmin_contracts.generation import ModelInfo
from hunmin_contracts.ids import AccountId, new_soft_prompt_id
from hunmin_contracts.soft_prompts import (
    MAX_PROVENANCE,
    ImportRequest,
    ListRequest,
    Manifest,
    SoftPromptFile,
    SoftPromptInfo,
    SoftPromptPage,
)
from hunmin_contracts.storage import refuse_to_store
from hunmin_kit.blobs import Blobs
from hunmin_modeling.soft_prompt import SoftPromptRows, check_file, read_file, write_file
from hunmin_text.prompt_template import resolve_slots
from torch import Tensor

from hunmin_generation.soft_prompts.registry import Change, Registry
from hunmin_generation.soft_prompts.residents import Residents


@dataclass(frozen=True)
class BaseModel:
    """A model that soft prompts can be made for."""

    info: ModelInfo
    dtype: torch.dtype


@dataclass(frozen=True)
class HeldSoftPrompt:
    """A soft prompt that a request holds."""

    info: SoftPromptInfo
    rows: SoftPromptRows


class SoftPrompts:
    """The soft prompts of all accounts, for these base models."""

    def __init__(self, registry: Registry, blobs: Blobs, residents: Residents, bases: Mapping[str, BaseModel]) -> None:
        self._registry = registry
        self._blobs = blobs
        self._residents = residents
        self._bases = bases

    async def add(self, request: ImportRequest, file: memoryview) -> SoftPromptInfo:
        """Keep a file as the next version of its name, or return the version that its job has left already.

        What is wrong with the file, or does not fit the model or the template, is a 400 or 413, other weights than the
        model's a `conflict`; what takes more than it may, `quota_exceeded`.
        """
        if request.name in self._bases:
            raise HunminError(
                ErrorCode.CONFLICT, f"{request.name!r} is the name of a model. Choose another one.", param="name"
            )
        job_id = None if request.origin is None else request.origin.job_id
        if job_id is not None:
            left = await self._registry.find_of_job(request.account_id, job_id)
            if left is not None:
                return left
        base = self._base(request.model)
        content, values = await asyncio.to_thread(_prepared, request, file, base)
        room = request.max_stored_bytes
        if room is not None and len(content) > room:
            refuse_to_store("The soft prompt", size=len(content), room=room)
        soft_prompt_id = new_soft_prompt_id()
        # The file comes first and goes last: what the registry names is there. A failure between leaves a file behind,
        # which is not deleted here, since a commit whose answer was lost may have been one.
        await self._blobs.put(_key(soft_prompt_id), content)
        info = await self._registry.add(request.account_id, id=soft_prompt_id, job_id=job_id, **values)
        if info.id != soft_prompt_id:  # the same job came twice at once
            await self._blobs.delete(_key(soft_prompt_id))
        return info

    async def describe(self, account_id: AccountId, reference: str) -> SoftPromptInfo:
        """Return one; `not_found` if the account has none of that name or version."""
        return await self._registry.find(account_id, reference)

    async def page(self, request: ListRequest) -> SoftPromptPage:
        """List those of an account."""
        return await self._registry.page(request)

    async def read(self, account_id: AccountId, reference: str) -> SoftPromptFile:
        """Return one with its file."""
        info = await self._registry.find(account_id, reference)
        return SoftPromptFile(info=info, content=base64.b64encode(await self._file(info)))

    async def promote(self, account_id: AccountId, reference: str) -> SoftPromptInfo:
        """Make the name mean this version, from the next request on, in every process; `conflict` if none can use it.

        Requests that hold another go on to their end.
        """
        info = await self._registry.find(account_id, reference)
        check_digests(info.manifest, self._base(info.model).info)
        return await self._registry.promote(account_id, reference)

    async def delete(self, account_id: AccountId, reference: str, *, force: bool = False) -> None:
        """Delete one; a promoted one only by `force`. Requests that hold it go on to their end."""
        info = await self._registry.remove(account_id, reference, force=force)
        self._residents.forget(info.id)
        await self._blobs.delete(_key(info.id))

    def hear(self, event: Envelope[SoftPromptChanged]) -> None:
        """Let the rows of a version go that was deleted by another process; what a name means is asked at each use."""
        if event.data.change == Change.DELETED:
            self._residents.forget(event.data.soft_prompt_id)

    async def stored_bytes(self, account_id: AccountId) -> int:
        """Return how much an account's soft prompts take."""
        return await self._registry.stored_bytes(account_id)

    @asynccontextmanager
    async def acquire(self, account_id: AccountId, reference: str) -> AsyncGenerator[HeldSoftPrompt, None]:
        """Hold a soft prompt while the block lasts, loading it if need be.

        `not_found` if the account has none of that name, `conflict` if its base model is no longer the same.
        """
        info = await self._registry.find(account_id, reference)
        base = self._base(info.model)
        check_digests(info.manifest, base.info)
        size = info.n_virtual * info.d_model * base.dtype.itemsize
        async with self._residents.hold(info.id, size, partial(self._load, info, base.dtype)) as rows:
            yield HeldSoftPrompt(info, rows)

    async def _load(self, info: SoftPromptInfo, dtype: torch.dtype) -> Tensor:
        content = await self._file(info)
        return (await asyncio.to_thread(read_file, content, d_model=info.d_model)).rows.to(dtype)

    async def _file(self, info: SoftPromptInfo) -> bytes:
        content = await self._blobs.get(_key(info.id))
        if await asyncio.to_thread(_digest, content) != info.digest:
            raise HunminError(
                ErrorCode.INTERNAL,
                f"The file of {info.name}@{info.version} is not the one that was kept. Delete it, and import it again.",
            )
        return content

    def _base(self, name: str) -> BaseModel:
        base = self._bases.get(name)
        if base is None:
            raise HunminError(
                ErrorCode.MODEL_NOT_FOUND,
                f"There is no model {name[:80]!r} for a soft prompt. There are: {', '.join(self._bases)}.",
                param="model",
            )
        return base


def _key(soft_prompt_id: str) -> str:
    return f"soft-prompts/{soft_prompt_id}"


def _digest(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def _prepared(request: ImportRequest, file: memoryview, base: BaseModel) -> tuple[bytes | memoryview, dict[str, Any]]:
    """Judge an import, and return the file to keep, its manifest completed, and its values for the registry."""
    d_model = base.info.d_model
    layout = check_file(file, d_model=d_model)
    if request.adapter is not None:
        request.adapter.check(n_virtual=layout.n_virtual, d_model=d_model)
    if layout.n_virtual >= base.info.context_length:
        raise HunminError(
            ErrorCode.TOO_LARGE,
            f"The soft prompt has {layout.n_virtual} rows, and {base.info.name} takes {base.info.context_length} "
            "tokens: no prompt would fit beside it. Train a shorter one.",
            param="file",
        )
    check_digests(layout.manifest, base.info)
    manifest = _completed(layout.manifest, request, base, layout.n_virtual)
    is_complete = manifest == layout.manifest  # then the file is kept as it came, byte for byte
    content = file if is_complete else write_file(read_file(file, d_model=d_model).rows, manifest)
    if not is_complete:
        check_file(content, d_model=d_model)  # with what was added, the header may be longer than is read
    return content, {
        "name": request.name,
        "model": base.info.name,
        "n_virtual": layout.n_virtual,
        "d_model": d_model,
        "dtype": layout.dtype,
        "digest": _digest(content),
        "size_bytes": len(content),
        "manifest": manifest.model_dump(mode="json"),
        "origin": None if request.origin is None else request.origin.model_dump(mode="json"),
    }


def check_digests(manifest: Manifest, model: ModelInfo) -> None:
    """Raise `conflict` if the soft prompt was made for other weights, or another tokenizer, than the model's."""
    pairs = {
        "checkpoint": (manifest.model_digest, model.digest),
        "tokenizer": (manifest.tokenizer_digest, model.tokenizer_digest),
    }
    for what, (made_for, present) in pairs.items():
        if made_for not in (None, present):
            raise HunminError(
                ErrorCode.CONFLICT,
                f"The soft prompt was made for a {what} with sha256 {made_for[:12]}…, and that of {model.name} has "
                f"{present[:12]}…. Use it with the model that it was made for, or train it again.",
                param="model",
            )


def _completed(manifest: Manifest, request: ImportRequest, base: BaseModel, n_virtual: int) -> Manifest:
    """Return the manifest with what the request says, and what only this service knows."""
    template = _either("template", manifest.template, request.template)
    slots = _either("slots", manifest.slots, request.slots)
    provenance = dict(manifest.provenance)
    if request.adapter is not None:
        provenance |= {"peft_type": request.adapter.peft_type}
        if request.adapter.base_model_name_or_path is not None:
            provenance |= {"peft_base_model": request.adapter.base_model_name_or_path}
        if len(provenance) > MAX_PROVENANCE:
            raise HunminError(
                ErrorCode.INVALID_PARAMETER,
                f"The file's manifest has {len(manifest.provenance)} entries of provenance, and with those of the "
                f"adapter's configuration {len(provenance)}; at most {MAX_PROVENANCE} are kept. Leave some out.",
                param="config",
            )
    resolve_slots(template, slots, n_virtual)  # raises where they do not fit
    return Manifest(
        model_digest=base.info.digest,
        tokenizer_digest=base.info.tokenizer_digest,
        template=template,
        slots=slots,
        provenance=provenance,
    )


def _either(name: str, of_file: Any, of_request: Any) -> Any:
    if of_file is not None and of_request not in (None, of_file):
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            f"The file's manifest has its own {name}, and it is another. Leave the parameter out.",
            param=name,
        )
    return of_request if of_file is None else of_file

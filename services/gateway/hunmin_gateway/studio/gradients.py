"""Input gradients of the Studio dialect: one answer, metered in backward tokens as they are computed."""

import base64
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends, Request
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.gradients import (
    GRADIENTS,
    MAX_BASE64_CHARACTERS,
    GradientBatch,
    GradientBody,
    GradientProgress,
    GradientRequest,
    GradientResponse,
)
from hunmin_contracts.tenancy import Scope
from hunmin_kit.web import current_request_id, is_json, validated
from starlette.responses import Response

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.exchange import Exchange, FileReader, Tokens, no_file
from hunmin_gateway.parts import PartsDep
from hunmin_gateway.studio.router import PREFIX, studio_router
from hunmin_gateway.studio.uploads import pieces, text_and_file

router = studio_router()

_BATCH, _FILE = "request", "soft_prompt"  # the parts of a form
# FastAPI does not see that the body is read here, so its schema brings its definitions along.
_DEFINITIONS = "#/paths/~1studio~1v1~1gradients/post/requestBody/content/application~1json/schema/$defs"
_BODY = {
    "content": {
        "application/json": {"schema": GradientBody.model_json_schema(ref_template=_DEFINITIONS + "/{model}")},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [_BATCH, _FILE],
                "properties": {
                    _BATCH: {"type": "string", "description": "The same as JSON, less `soft_prompt`."},
                    _FILE: {"type": "string", "format": "binary", "description": "The safetensors file."},
                },
            }
        },
    }
}


@dataclass(frozen=True)
class Sent:
    """A batch, and the file that came with it."""

    batch: GradientBatch
    file: FileReader | None


async def _sent(request: Request) -> AsyncGenerator[Sent, None]:
    """Read JSON with a small file in it, or a form, whose file is not held in memory."""
    media_type = request.headers.get("content-type", "")
    if media_type.startswith("multipart/form-data"):
        async with text_and_file(request, _BATCH, _FILE) as (text, file):
            yield Sent(validated(GradientBatch, text.encode()), partial(pieces, file))
        return
    if not is_json(media_type):
        raise HunminError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Send application/json, or multipart/form-data with a soft prompt's file."
        )
    body = validated(GradientBody, await request.body())
    file_there = None if body.soft_prompt is None else partial(_once, _decoded(body.soft_prompt))
    yield Sent(GradientBatch(**{name: getattr(body, name) for name in GradientBatch.model_fields}), file_there)


def _decoded(text: str) -> bytes:
    if len(text) > MAX_BASE64_CHARACTERS:
        what = f"longer than {MAX_BASE64_CHARACTERS:,} characters. Send the file in a form, as docs/gradients.md says"
    else:
        try:
            return base64.b64decode(text, validate=True)
        except ValueError:
            what = "not base64. Encode the bytes of a safetensors file"
    raise HunminError(ErrorCode.INVALID_PARAMETER, f"Parameter soft_prompt: {what}.", param="soft_prompt")


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


@router.post(
    "/gradients",
    response_model=GradientResponse,
    summary="Gradients at a soft prompt",
    openapi_extra={"requestBody": _BODY | {"required": True}},
    dependencies=[requires(Scope.GRADIENTS)],
)
async def gradients(sent: Annotated[Sent, Depends(_sent)], principal: PrincipalDep, parts: PartsDep) -> Response:
    """Return the loss of a batch and its gradient at the rows of a soft prompt.

    That is all that is needed to train a prompt encoder at home, without the model's weights. On request also the
    saliency of each prompt token, and the tokens that would lower the loss most at given positions.

    A soft prompt of up to 1 MiB may be in the JSON as base64; a larger one is the part `soft_prompt` of a form, whose
    part `request` is the JSON.
    """
    request = GradientRequest(
        account_id=principal.account_id, has_soft_prompt=sent.file is not None, **dict(sent.batch)
    )
    exchange = Exchange(
        current_request_id(), principal, f"{PREFIX}/gradients", request.model, [request], sent.file or no_file
    )
    response: GradientResponse | None = None
    async with (
        parts.pipeline.metered(exchange) as meter,
        parts.generation.stream(GRADIENTS, exchange.requests[0], exchange.file()) as events,
    ):
        async for event in events:
            if isinstance(event.root, GradientProgress):
                usage = event.root.usage
            else:
                response = event.root.response
                usage = response.usage
            meter.record(Tokens(prompt=usage.prompt_tokens, backward=usage.backward_tokens))
        if response is None:
            raise HunminError(ErrorCode.UNAVAILABLE, "The gradients were cut off before their end. Try again.")
    return Response(response.model_dump_json(), media_type="application/json")

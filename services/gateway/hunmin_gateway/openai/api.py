"""The routes of the OpenAI dialect. The official clients work against them unchanged."""

import time
from typing import Any, Literal

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import MODELS, ModelInfo
from hunmin_contracts.ids import AccountId
from hunmin_contracts.schema import Empty
from hunmin_contracts.soft_prompts import SoftPromptInfo
from hunmin_contracts.tenancy import Scope
from hunmin_kit.web import current_request_id
from pydantic import BaseModel
from starlette.responses import Response

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.exchange import Exchange
from hunmin_gateway.openai.answer import PieceT, Writer, answer_streamed, answer_whole
from hunmin_gateway.openai.chat import ChatCompletion, ChatCompletionRequest, ChatWriter
from hunmin_gateway.openai.completion import Completion, CompletionRequest, CompletionWriter
from hunmin_gateway.openai.embeddings import embed
from hunmin_gateway.openai.head import Head
from hunmin_gateway.openai.parameters import Parameters
from hunmin_gateway.openai.router import openai_router
from hunmin_gateway.parts import Parts, PartsDep
from hunmin_gateway.principal import Principal
from hunmin_gateway.studio.soft_prompts import all_of, find

router = openai_router()
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answer, whole or as server-sent events", "content": {"text/event-stream": {}}}
}


@router.post(
    "/completions",
    response_model=Completion,
    responses=STREAM,
    summary="Complete a text",
    dependencies=[requires(Scope.GENERATE)],
)
async def complete(body: CompletionRequest, principal: PrincipalDep, parts: PartsDep) -> Response:
    """Continue each prompt. With `stream=true` the answer is server-sent events that end with `data: [DONE]`."""
    return await _answer("/v1/completions", body, CompletionWriter(body, _head("cmpl", body)), principal, parts)


@router.post(
    "/chat/completions",
    response_model=ChatCompletion,
    responses=STREAM,
    summary="Answer a chat",
    dependencies=[requires(Scope.GENERATE)],
)
async def chat(body: ChatCompletionRequest, principal: PrincipalDep, parts: PartsDep) -> Response:
    """Write the assistant's next turn. With `stream=true` the answer is server-sent events, as for completions."""
    return await _answer("/v1/chat/completions", body, ChatWriter(body, _head("chatcmpl", body)), principal, parts)


router.post("/embeddings", summary="Embed texts", dependencies=[requires(Scope.GENERATE)])(embed)


def _head(prefix: str, body: Parameters) -> Head:
    return Head.of(prefix, current_request_id(), created=int(time.time()), model=body.model)


async def _answer(
    endpoint: str,
    body: CompletionRequest | ChatCompletionRequest,
    writer: Writer[PieceT],
    principal: Principal,
    parts: Parts,
) -> Response:
    exchange = Exchange(
        current_request_id(), principal, endpoint, body.model, body.generate_requests(principal.account_id)
    )
    if body.stream:
        return answer_streamed(parts.pipeline, exchange, writer, include_usage=body.wants_usage_chunk)
    return await answer_whole(parts.pipeline, exchange, writer)


class Model(BaseModel):
    """A model that can be named in a request. `created` is Unix time in seconds.

    A soft prompt is owned by its account, and `parent` is the model that it stands before.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "hunmin"
    parent: str | None = None

    @classmethod
    def of(cls, info: ModelInfo) -> "Model":
        """Describe a model of the generation service."""
        return cls(id=info.name, created=info.created)

    @classmethod
    def of_soft_prompt(cls, info: SoftPromptInfo, owner: AccountId) -> "Model":
        """Describe a version of a soft prompt."""
        return cls(
            id=f"{info.name}@{info.version}",
            created=int(info.created_at.timestamp()),
            owned_by=owner,
            parent=info.model,
        )


class ModelPage(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/models", summary="List the models", dependencies=[requires(Scope.READ)])
async def models(principal: PrincipalDep, parts: PartsDep) -> ModelPage:
    """List every model that this server has loaded, then the soft prompts of your account."""
    found = await parts.generation.call(MODELS, Empty())
    own = [Model.of_soft_prompt(info, principal.account_id) for info in await all_of(principal, parts)]
    return ModelPage(data=[Model.of(info) for info in found.models] + own)


@router.get("/models/{name:path}", summary="Describe a model", dependencies=[requires(Scope.READ)])
async def model(name: str, principal: PrincipalDep, parts: PartsDep) -> Model:
    """Describe one model, or one soft prompt of your account, by its name."""
    found = await parts.generation.call(MODELS, Empty())
    for info in found.models:
        if info.name == name:
            return Model.of(info)
    own = await find(name, principal, parts)
    if own is not None:
        return Model.of_soft_prompt(own, principal.account_id)
    known = ", ".join(info.name for info in found.models)
    raise HunminError(ErrorCode.MODEL_NOT_FOUND, f"There is no model {name!r} here. There is: {known}.", param="model")

"""The routes of the TGI dialect. A URL is a TGI server: the gateway's own serves the default model, and
`/models/NAME` any other."""

from collections.abc import AsyncGenerator
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import MODELS, GenerateRequest, ModelInfo
from hunmin_contracts.schema import Empty
from hunmin_contracts.soft_prompts import DESCRIBE, SoftPromptRequest
from hunmin_contracts.tenancy import Scope
from hunmin_kit.web import EventStream, current_request_id
from pydantic import BaseModel
from starlette.responses import Response

from hunmin_gateway.authentication import KeyedRoute, PrincipalDep, requires
from hunmin_gateway.exchange import Exchange
from hunmin_gateway.parts import Parts, PartsDep
from hunmin_gateway.pipeline import Pipeline
from hunmin_gateway.principal import Principal
from hunmin_gateway.public_schema import NAME
from hunmin_gateway.tgi.answer import Answer, StreamPiece, Writer
from hunmin_gateway.tgi.errors import ErrorBody, error_event
from hunmin_gateway.tgi.parameters import MAX_BEST_OF, MAX_STOP_SEQUENCES, Ask, GenerateBody, RootBody

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "What is wrong with the request"}
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "A token an event", "content": {"text/event-stream": {}}}
}


def _checked_name(name: Annotated[str, Path(max_length=200, pattern=NAME, description="A model.")]) -> str:
    return name


def _url_model(request: Request) -> str | None:
    return request.path_params.get("name")


UrlModel = Annotated[str | None, Depends(_url_model)]  # None: the URL serves the default model
_NAMED = [Depends(_checked_name)]
router = APIRouter(tags=["TGI"], route_class=KeyedRoute, responses=_ERRORS)
named = APIRouter(
    prefix="/models/{name:path}",
    tags=["TGI"],
    route_class=KeyedRoute,
    dependencies=_NAMED,
    responses=_ERRORS,
)
health_router = APIRouter(tags=["TGI"], responses=_ERRORS)


class Info(BaseModel):
    """What TGI's `/info` tells, as far as it is known here."""

    model_id: str
    model_sha: str
    model_pipeline_tag: str = "text-generation"
    max_best_of: int = MAX_BEST_OF
    max_stop_sequences: int = MAX_STOP_SEQUENCES
    max_input_tokens: int
    max_total_tokens: int
    max_client_batch_size: int = 1
    router: str = "hunmin-gateway"
    version: str


@router.post("/generate", response_model=Answer, summary="Generate a text", dependencies=[requires(Scope.GENERATE)])
@named.post(
    "/generate", response_model=Answer, summary="Generate a text by that model", dependencies=[requires(Scope.GENERATE)]
)
async def generate(body: GenerateBody, principal: PrincipalDep, parts: PartsDep, name: UrlModel) -> Response:
    """Continue `inputs`."""
    ask = Ask.of(body, await _model(body, name, principal, parts), is_streamed=False)
    return _whole(await _answer("/generate", ask, principal, parts), is_list=False)


@router.post(
    "/generate_stream",
    response_model=StreamPiece,
    responses=_STREAM,
    summary="Stream a text",
    dependencies=[requires(Scope.GENERATE)],
)
@named.post(
    "/generate_stream",
    response_model=StreamPiece,
    responses=_STREAM,
    summary="Stream a text by that model",
    dependencies=[requires(Scope.GENERATE)],
)
async def generate_stream(body: GenerateBody, principal: PrincipalDep, parts: PartsDep, name: UrlModel) -> Response:
    """Continue `inputs`, an event for each token."""
    ask = Ask.of(body, await _model(body, name, principal, parts), is_streamed=True)
    return _streamed("/generate_stream", ask, principal, parts)


@router.get("/info", summary="Describe the default model", dependencies=[requires(Scope.READ)])
@named.get("/info", summary="Describe a model", dependencies=[requires(Scope.READ)])
async def info(parts: PartsDep, name: UrlModel) -> Info:
    """Describe the model that the URL serves."""
    model = await _base_model(name or parts.tgi_model, parts)
    return Info(
        model_id=model.name,
        model_sha=model.digest,
        max_input_tokens=model.context_length - 1,
        max_total_tokens=model.context_length,
        version=version("hunmin-gateway"),
    )


@health_router.get("/health", summary="Whether a model can be reached")
@health_router.get("/models/{name:path}/health", dependencies=_NAMED, summary="Whether that model can be reached")
async def health(parts: PartsDep, name: UrlModel) -> Response:
    """Answer 200 with no body if the model is there. Needs no key."""
    await _base_model(name or parts.tgi_model, parts)
    return Response()


# The last one: the pattern of its path matches those above too.
@router.post(
    "/",
    response_model=list[Answer],
    responses=_STREAM,
    summary="Generate a text, or stream it",
    dependencies=[requires(Scope.GENERATE)],
)
@named.post(
    "",
    response_model=list[Answer],
    responses=_STREAM,
    summary="Generate or stream a text by that model",
    dependencies=[requires(Scope.GENERATE)],
)
async def root(body: RootBody, principal: PrincipalDep, parts: PartsDep, name: UrlModel) -> Response:
    """Continue `inputs`: an answer in a list, or with `stream=true` an event for each token."""
    ask = Ask.of(body, await _model(body, name, principal, parts), is_streamed=bool(body.stream))
    if ask.is_streamed:
        return _streamed("/", ask, principal, parts)
    return _whole(await _answer("/", ask, principal, parts), is_list=True)


async def _model(body: GenerateBody, name: str | None, principal: Principal, parts: Parts) -> str:
    """Return what to generate with: the adapter, else the model of the URL, else the default."""
    adapter = body.given.adapter_id
    if adapter is None:
        return name or (await _base_model(parts.tgi_model, parts)).name
    if name is not None:
        asked = SoftPromptRequest(account_id=principal.account_id, reference=adapter)
        found = await parts.generation.call(DESCRIBE, asked)
        if found.model != name:
            raise HunminError(
                ErrorCode.INVALID_PARAMETER,
                f"Parameter parameters.adapter_id: {adapter} is a soft prompt for {found.model}, and this URL serves "
                f"{name}.",
                param="parameters.adapter_id",
            )
    return adapter


async def _base_model(name: str | None, parts: Parts) -> ModelInfo:
    """Return the model of that name, or the first one."""
    models = (await parts.generation.call(MODELS, Empty())).models
    for model in models:
        if name is None or model.name == name:
            return model
    known = ", ".join(model.name for model in models)
    raise HunminError(ErrorCode.MODEL_NOT_FOUND, f"There is no model {name!r} here. There is: {known}.", param="model")


def _exchange(endpoint: str, ask: Ask, principal: Principal) -> Exchange[GenerateRequest]:
    prompts = [ask.generate_request(principal.account_id)]
    return Exchange(current_request_id(), principal, endpoint, ask.model, prompts)


async def _answer(
    endpoint: str, ask: Ask, principal: Principal, parts: Parts
) -> tuple[Answer, Exchange[GenerateRequest]]:
    exchange, writer = _exchange(endpoint, ask, principal), Writer(ask)
    async with parts.pipeline.run(exchange) as events:
        async for _, event in events:
            writer.take(event)
    return writer.answer(), exchange


def _whole(answered: tuple[Answer, Exchange[GenerateRequest]], *, is_list: bool) -> Response:
    answer, exchange = answered
    body = answer.model_dump_json()
    counts = {
        "x-prompt-tokens": str(exchange.meter.prompt_tokens),
        "x-generated-tokens": str(exchange.meter.completion_tokens),
    }
    return Response(f"[{body}]" if is_list else body, headers=counts, media_type="application/json")


def _streamed(endpoint: str, ask: Ask, principal: Principal, parts: Parts) -> Response:
    exchange = _exchange(endpoint, ask, principal)
    return EventStream(_frames(parts.pipeline, exchange, Writer(ask)), on_error=error_event)


async def _frames(
    pipeline: Pipeline, exchange: Exchange[GenerateRequest], writer: Writer
) -> AsyncGenerator[bytes, None]:
    last: StreamPiece | None = None
    async with pipeline.run(exchange) as events:
        await events.accepted()
        async for _, event in events:
            for piece in writer.pieces(event):
                if piece.generated_text is None:
                    yield _frame(piece)
                else:
                    last = piece
    # Behind the context the usage is settled: whoever has seen the end of a stream finds its row.
    if last is not None:
        yield _frame(last)


def _frame(piece: StreamPiece) -> bytes:
    return b"data:" + piece.model_dump_json().encode() + b"\n\n"

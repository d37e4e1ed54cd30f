"""CLOVA Studio's OpenAI-compatible paths: the handlers of the OpenAI dialect, and the parameters that NAVER adds."""

from typing import Any

from fastapi import APIRouter
from hunmin_contracts.generation import Sampling
from hunmin_contracts.tenancy import Scope
from pydantic import Field
from pydantic import field_validator as validates
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.clova.parameters import repetition_penalty_of
from hunmin_gateway.clova.router import ClovaRoute
from hunmin_gateway.openai import api as openai
from hunmin_gateway.openai.chat import ChatCompletion, ChatCompletionRequest
from hunmin_gateway.openai.completion import Completion
from hunmin_gateway.openai.embeddings import EmbeddingPage, EmbeddingsBody, embed
from hunmin_gateway.openai.errors import ErrorBody
from hunmin_gateway.openai.parameters import Ignored
from hunmin_gateway.parts import PartsDep

PREFIX = "/v1/openai"
router = APIRouter(
    prefix=PREFIX,
    tags=["CLOVA Studio, as OpenAI"],
    route_class=ClovaRoute,
    responses={"4XX": {"model": ErrorBody, "description": "What is wrong with the request"}},
)


class TwinChatRequest(ChatCompletionRequest):
    """The body of `POST /v1/openai/chat/completions`."""

    repeat_penalty: float | None = Field(
        default=None, gt=0, le=10, description="NAVER's older `repetition_penalty`: 5 is one of 1.1."
    )

    @validates("repeat_penalty", mode="after")
    @classmethod
    def _is_the_only_one(cls, value: float | None, info: Any) -> float | None:
        if value is not None and info.data.get("repetition_penalty") is not None:
            raise PydanticCustomError("invalid_value", "contradicts repetition_penalty; give one of them")
        return value

    def sampling(self) -> Sampling:
        """How the next token is chosen."""
        chosen = super().sampling()
        if self.repeat_penalty is None:
            return chosen
        return chosen.model_copy(update={"repetition_penalty": repetition_penalty_of(self.repeat_penalty)})


class TwinEmbeddingsBody(EmbeddingsBody):
    """The body of `POST /v1/openai/embeddings`. NAVER's client always asks for 1024 dimensions, its model's number."""

    dimensions: Ignored = None


@router.post(
    "/chat/completions",
    response_model=ChatCompletion,
    responses=openai.STREAM,
    summary="Answer a chat",
    dependencies=[requires(Scope.GENERATE)],
)
async def chat(body: TwinChatRequest, principal: PrincipalDep, parts: PartsDep) -> Response:
    """As `/v1/chat/completions`."""
    return await openai.chat(body, principal, parts)


@router.post("/embeddings", summary="Embed texts", dependencies=[requires(Scope.GENERATE)])
async def embeddings(body: TwinEmbeddingsBody, principal: PrincipalDep, parts: PartsDep) -> EmbeddingPage:
    """As `/v1/embeddings`; a vector has as many numbers as the model has, whatever `dimensions` says."""
    return await embed(body, principal, parts)


router.post(
    "/completions",
    response_model=Completion,
    responses=openai.STREAM,
    summary="Complete a text",
    dependencies=[requires(Scope.GENERATE)],
)(openai.complete)
router.get("/models", summary="List the models", dependencies=[requires(Scope.READ)])(openai.models)
router.get("/models/{name:path}", summary="Describe a model", dependencies=[requires(Scope.READ)])(openai.model)

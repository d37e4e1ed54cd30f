"""What a batch can hold of the OpenAI dialect: three of its requests, checked and answered by the routes' own code."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from hunmin_contracts.errors import ErrorCode, HunminError, Problem
from hunmin_kit.web import problem_of, validated
from hunmin_kit.web.errors import as_hunmin_error
from pydantic import BaseModel
from starlette.responses import Response

from hunmin_gateway.openai.api import chat, complete
from hunmin_gateway.openai.chat import ChatCompletionRequest
from hunmin_gateway.openai.completion import CompletionRequest
from hunmin_gateway.openai.embeddings import EmbeddingsBody, embed
from hunmin_gateway.openai.errors import error_body, error_body_at
from hunmin_gateway.openai.parameters import Parameters
from hunmin_gateway.parts import Parts
from hunmin_gateway.principal import Principal

_BODIES: Mapping[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatCompletionRequest,
    "/v1/completions": CompletionRequest,
    "/v1/embeddings": EmbeddingsBody,
}
_ROUTES: Mapping[str, Callable[[Any, Principal, Parts], Awaitable[Response | BaseModel]]] = {
    "/v1/chat/completions": chat,
    "/v1/completions": complete,
    "/v1/embeddings": embed,
}


class OpenAIRequests:
    """See batches.batch.Dialect."""

    endpoints = tuple(_BODIES)

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def check(self, endpoint: str, body: str) -> None:
        """See Dialect. A stream is refused: nobody would read it."""
        try:
            request = validated(_BODIES[endpoint], body.encode())
        except RequestValidationError as error:
            raise as_hunmin_error(error) or error from None
        if isinstance(request, Parameters) and request.stream:
            raise HunminError(
                ErrorCode.INVALID_PARAMETER,
                "Parameter stream: the requests of a batch are answered whole. Leave it out.",
                param="stream",
            )

    async def answer(self, endpoint: str, body: str, principal: Principal) -> str:
        """See Dialect."""
        answered = await _ROUTES[endpoint](validated(_BODIES[endpoint], body.encode()), principal, self._parts)
        return answered.model_dump_json() if isinstance(answered, BaseModel) else bytes(answered.body).decode()

    def failure(self, endpoint: str, error: Exception) -> tuple[int, str]:
        """See Dialect."""
        problem = problem_of(error)
        return problem.status, error_body_at(problem, endpoint).model_dump_json()

    def code_of(self, error: HunminError) -> str:
        """See Dialect."""
        return error_body(Problem.of(error)).error.code

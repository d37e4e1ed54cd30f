"""The routes of the CLOVA Studio dialect for texts: chats and completions, by a model or by what a task has made."""

from typing import Any

from fastapi import Request
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import JobId
from hunmin_contracts.tenancy import Scope
from hunmin_contracts.tuning_jobs import DESCRIBE, JobRequest
from hunmin_kit.web import current_request_id
from starlette.responses import Response

from hunmin_gateway.authentication import PrincipalDep
from hunmin_gateway.clova.answer import answer_streamed, answer_whole, wants_stream
from hunmin_gateway.clova.chat import ChatRequest, ChatResult, ThirdChatRequest, ThirdChatResult
from hunmin_gateway.clova.completion import CompletionRequest, CompletionResult
from hunmin_gateway.clova.envelope import Envelope
from hunmin_gateway.clova.router import ModelPath, clova_router
from hunmin_gateway.exchange import Exchange
from hunmin_gateway.parts import Parts, PartsDep
from hunmin_gateway.principal import Principal

router = clova_router(scope=Scope.GENERATE)
# As usage tells them, whether a model was named or a task.
_CHAT, _THIRD_CHAT = "/v1/chat-completions", "/v3/chat-completions"
_COMPLETIONS = "/v1/completions/{model}"  # without a model it is OpenAI's
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer, whole, or with `Accept: text/event-stream` as events",
        "content": {"text/event-stream": {}},
    }
}


@router.post(
    "/v1/chat-completions/{model:path}",
    response_model=Envelope[ChatResult],
    responses=_STREAM,
    summary="Answer a chat",
)
async def chat(
    request: Request, model: ModelPath, body: ChatRequest, principal: PrincipalDep, parts: PartsDep
) -> Response:
    """Write the assistant's next turn. A stream has events `token`, then `result` and `signal`, or `error`."""
    return await _answer(_CHAT, model, body, request, principal, parts)


@router.post(
    "/v3/chat-completions/{model:path}",
    response_model=Envelope[ThirdChatResult],
    responses=_STREAM,
    summary="Answer a chat (v3)",
)
async def third_chat(
    request: Request, model: ModelPath, body: ThirdChatRequest, principal: PrincipalDep, parts: PartsDep
) -> Response:
    """Write the assistant's next turn. A stream has events `token`, then `result` and `signal`, or `error`."""
    return await _answer(_THIRD_CHAT, model, body, request, principal, parts)


@router.post(
    "/v1/completions/{model:path}",
    response_model=Envelope[CompletionResult],
    responses=_STREAM,
    summary="Complete a text",
)
async def complete(
    request: Request, model: ModelPath, body: CompletionRequest, principal: PrincipalDep, parts: PartsDep
) -> Response:
    """Go on after `text` and `start`. A stream has events `token`, then `result` and `signal`, or `error`."""
    return await _answer(_COMPLETIONS, model, body, request, principal, parts)


@router.post(
    "/v1/tasks/{task_id}/chat-completions",
    response_model=Envelope[ChatResult],
    responses=_STREAM,
    summary="Answer a chat by a tuned model",
)
@router.post(
    "/v2/tasks/{task_id}/chat-completions",
    response_model=Envelope[ChatResult],
    responses=_STREAM,
    summary="Answer a chat by a tuned model (v2)",
)
async def task_chat(
    request: Request, task_id: str, body: ChatRequest, principal: PrincipalDep, parts: PartsDep
) -> Response:
    """As `/v1/chat-completions`, by what the task has made."""
    return await _answer(_CHAT, await _made_by(task_id, principal, parts), body, request, principal, parts)


@router.post(
    "/v3/tasks/{task_id}/chat-completions",
    response_model=Envelope[ThirdChatResult],
    responses=_STREAM,
    summary="Answer a chat by a tuned model (v3)",
)
async def third_task_chat(
    request: Request, task_id: str, body: ThirdChatRequest, principal: PrincipalDep, parts: PartsDep
) -> Response:
    """As `/v3/chat-completions`, by what the task has made."""
    return await _answer(_THIRD_CHAT, await _made_by(task_id, principal, parts), body, request, principal, parts)


@router.post(
    "/v1/tasks/{task_id}/completions",
    response_model=Envelope[CompletionResult],
    responses=_STREAM,
    summary="Complete a text by a tuned model",
)
@router.post(
    "/v2/tasks/{task_id}/completions",
    response_model=Envelope[CompletionResult],
    responses=_STREAM,
    summary="Complete a text by a tuned model (v2)",
)
async def task_complete(
    request: Request, task_id: str, body: CompletionRequest, principal: PrincipalDep, parts: PartsDep
) -> Response:
    """As `/v1/completions`, by what the task has made."""
    return await _answer(_COMPLETIONS, await _made_by(task_id, principal, parts), body, request, principal, parts)


async def _answer(
    endpoint: str,
    model: str,
    body: ChatRequest | ThirdChatRequest | CompletionRequest,
    request: Request,
    principal: Principal,
    parts: Parts,
) -> Response:
    seed = body.drawn_seed()
    asked = body.generate_request(principal.account_id, model, seed)
    exchange = Exchange(current_request_id(), principal, endpoint, model, [asked])
    if body.stream or wants_stream(request):
        return answer_streamed(parts.pipeline, exchange, body.writer(seed))
    return await answer_whole(parts.pipeline, exchange, body.writer(seed))


async def _made_by(task_id: str, principal: Principal, parts: Parts) -> str:
    """Return the model that a task has made; it is called as any other, by its name and version."""
    job = await parts.tuning.call(DESCRIBE, JobRequest(account_id=principal.account_id, job_id=JobId(task_id)))
    if job.soft_prompt is None:
        state = "is being cancelled" if job.is_cancel_wanted and job.ended_at is None else f"is {job.state}"
        remedy = "Call another." if job.ended_at is not None else "Call it when it has succeeded."
        raise HunminError(ErrorCode.CONFLICT, f"The task {task_id} {state}, and has no model. {remedy}")
    return job.soft_prompt

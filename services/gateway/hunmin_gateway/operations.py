"""What the OpenAPI file says of single operations: what each may be refused with, which are files, which streams.

It is what no function's signature tells; `described.py` writes it into the document.
"""

from collections.abc import Sequence
from typing import Any

from hunmin_contracts.errors import ErrorCode
from hunmin_kit.web.openapi import event_of
from pydantic import BaseModel

from hunmin_gateway.clova.chat import ChatToken, ThirdChatToken
from hunmin_gateway.clova.completion import CompletionToken

Json = dict[str, Any]

SCHEMAS = "#/components/schemas/"
CLOVA_APPS = ("", "/testapp", "/serviceapp")
METERED = (ErrorCode.MODEL_NOT_FOUND, ErrorCode.OVERLOADED, ErrorCode.QUOTA_EXCEEDED)
_FINDS_MODEL = (ErrorCode.NOT_FOUND, ErrorCode.MODEL_NOT_FOUND)
_CLASHES = (ErrorCode.CONFLICT,)
_IN_PROJECT = (ErrorCode.NOT_FOUND,)  # a list that may be narrowed to one
_LOGS_IN = (ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN, ErrorCode.NOT_FOUND)
_CLOVA_CHATS = (
    "/v1/chat-completions/{model}",
    "/v1/tasks/{task_id}/chat-completions",
    "/v2/tasks/{task_id}/chat-completions",
)
_CLOVA_THIRD_CHATS = ("/v3/chat-completions/{model}", "/v3/tasks/{task_id}/chat-completions")
_CLOVA_TEXTS = (
    "/v1/completions/{model}",
    "/v1/tasks/{task_id}/completions",
    "/v2/tasks/{task_id}/completions",
)
_CLOVA_TASKS = tuple(path for path in _CLOVA_CHATS + _CLOVA_THIRD_CHATS + _CLOVA_TEXTS if "{task_id}" in path)
_TUNES = (ErrorCode.NOT_FOUND, ErrorCode.MODEL_NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.QUOTA_EXCEEDED)
_KEEPS = (ErrorCode.QUOTA_EXCEEDED,)
# What an operation may be refused with beside what its shape says: an id in its path, a body, a key.
OWN: dict[str, tuple[ErrorCode, ...]] = {
    "POST /v1/completions": METERED,
    "POST /v1/chat/completions": METERED,
    "POST /v1/embeddings": METERED,
    "POST /studio/v1/gradients": METERED,
    "POST /studio/v1/score": METERED,
    "POST /generate": METERED,
    "POST /generate_stream": METERED,
    "POST /": METERED,
    "POST /models/{name}/generate": METERED,
    "POST /models/{name}/generate_stream": METERED,
    "POST /models/{name}": METERED,
    "GET /info": (ErrorCode.MODEL_NOT_FOUND,),
    "GET /health": (ErrorCode.MODEL_NOT_FOUND,),
    "POST /v1/fine_tuning/jobs": _TUNES,
    "POST /v1/fine_tuning/jobs/{job_id}/cancel": (ErrorCode.CONFLICT,),
    "POST /tuning/v2/tasks": _TUNES,
    "DELETE /tuning/v2/tasks/{task_id}": (ErrorCode.CONFLICT,),
    "POST /v1/files": _KEEPS,
    "POST /studio/v1/datasets": _KEEPS,
    "POST /studio/v1/soft-prompts": (ErrorCode.MODEL_NOT_FOUND, ErrorCode.CONFLICT, *_KEEPS),
    "DELETE /studio/v1/soft-prompts/{reference}": (ErrorCode.CONFLICT,),
    "POST /studio/v1/soft-prompts/compare": (ErrorCode.NOT_FOUND,),
    "POST /studio/v1/datasets/{reference}/report": (ErrorCode.MODEL_NOT_FOUND,),
    "POST /studio/v1/tuning/jobs": _TUNES,
    "POST /studio/v1/tuning/jobs/{job_id}/cancel": (ErrorCode.CONFLICT,),
    "POST /studio/v1/tuning/preview": (ErrorCode.NOT_FOUND, ErrorCode.MODEL_NOT_FOUND),
    "POST /v1/batches/{batch_id}/cancel": _CLASHES,
    "POST /studio/v1/batches": (ErrorCode.NOT_FOUND, ErrorCode.MODEL_NOT_FOUND, *_KEEPS),
    "POST /studio/v1/batches/{batch_id}/cancel": _CLASHES,
    "GET /studio/v1/batches/{batch_id}/results.csv": _CLASHES,
    "PATCH /studio/v1/account": _CLASHES,
    "POST /studio/v1/projects": _CLASHES,
    "PATCH /studio/v1/projects/{project_id}": _CLASHES,
    "POST /studio/v1/projects/{project_id}/archive": _CLASHES,
    "POST /studio/v1/projects/{project_id}/restore": _CLASHES,
    "GET /studio/v1/members": _IN_PROJECT,
    "POST /studio/v1/members": (ErrorCode.NOT_FOUND, ErrorCode.CONFLICT),
    "PATCH /studio/v1/members/{member_id}": _CLASHES,
    "DELETE /studio/v1/members/{member_id}": _CLASHES,
    "GET /studio/v1/keys": _IN_PROJECT,
    "POST /studio/v1/keys": (ErrorCode.NOT_FOUND, ErrorCode.CONFLICT),
    "POST /studio/v1/keys/{key_id}/revoke": _CLASHES,
    "POST /studio/v1/keys/{key_id}/rotate": _CLASHES,
    "GET /studio/v1/usage": _IN_PROJECT,
    "GET /studio/v1/usage/summary": _IN_PROJECT,
    "GET /studio/v1/usage.csv": _IN_PROJECT,
    "POST /studio/v1/operator/accounts": _CLASHES,
    "PATCH /studio/v1/operator/accounts/{account_id}": _CLASHES,
    "GET /auth/login": _CLASHES,  # over plain HTTP
    "GET /auth/callback": (ErrorCode.UNAUTHENTICATED, ErrorCode.NOT_FOUND),
    "GET /auth/password": (ErrorCode.NOT_FOUND,),
    "POST /auth/password": (*_LOGS_IN, ErrorCode.OVERLOADED),
    "POST /auth/password/change": (*_LOGS_IN, ErrorCode.OVERLOADED),
    "GET /auth/session": (ErrorCode.UNAUTHENTICATED,),
    "POST /auth/logout": (ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN),
    "POST /v1/openai/chat/completions": METERED,
    "POST /v1/openai/completions": METERED,
    "POST /v1/openai/embeddings": METERED,
    **{
        f"POST {app}{path}": codes
        for app in CLOVA_APPS
        for path, codes in {
            **dict.fromkeys(_CLOVA_CHATS + _CLOVA_THIRD_CHATS + _CLOVA_TEXTS, METERED),
            **dict.fromkeys(_CLOVA_TASKS, (*METERED, ErrorCode.CONFLICT)),
            "/v1/api-tools/embedding/{model}": METERED,
            "/v1/api-tools/chat-tokenize/{model}": _FINDS_MODEL,
            "/v3/api-tools/chat-tokenize/{model}": _FINDS_MODEL,
            "/v1/api-tools/sliding/chat-messages/{model}": _FINDS_MODEL,
        }.items()
    },
}
FILES: dict[str, tuple[str, ...]] = {
    "GET /v1/files/{file_id}/content": ("application/octet-stream", "text/csv"),
    "GET /studio/v1/soft-prompts/{reference}/file": ("application/octet-stream",),
    "GET /studio/v1/soft-prompts/{reference}/peft": ("application/zip",),
    "GET /studio/v1/usage.csv": ("text/csv",),
    "GET /studio/v1/batches/{batch_id}/results.csv": ("text/csv",),
    "GET /studio/v1/products/{name}/sample": ("text/csv", "text/tab-separated-values", "application/jsonl"),
}
_DONE = {"type": "object", "properties": {"data": {"const": "[DONE]"}}, "required": ["data"]}
_SIGNAL = event_of({"type": "object", "properties": {"data": {"const": "[DONE]"}}}, name="signal")
_RESULT = {
    f"{kind}Token": event_of({"$ref": f"{SCHEMAS}{kind}Result"}, name="result")
    for kind in ("Chat", "ThirdChat", "Completion")
}
# The schema of a stream's events, which an error may end, and the event that ends it else, where there is one.
STREAMS: dict[str, tuple[str, tuple[Json, ...]]] = {
    "POST /v1/completions": ("Completion", (_DONE,)),
    "POST /v1/chat/completions": ("ChatCompletionChunk", (_DONE,)),
    "POST /v1/openai/completions": ("Completion", (_DONE,)),
    "POST /v1/openai/chat/completions": ("ChatCompletionChunk", (_DONE,)),
    "GET /studio/v1/tuning/jobs/{job_id}/events": ("JobEvent", ()),
    "GET /studio/v1/batches/{batch_id}/events": ("BatchInfo", ()),
    **{
        f"POST {app}{path}": (token, (_RESULT[token], _SIGNAL))
        for app in CLOVA_APPS
        for paths, token in (
            (_CLOVA_CHATS, "ChatToken"),
            (_CLOVA_THIRD_CHATS, "ThirdChatToken"),
            (_CLOVA_TEXTS, "CompletionToken"),
        )
        for path in paths
    },
    "POST /generate_stream": ("StreamPiece", ()),
    "POST /": ("StreamPiece", ()),
    "POST /models/{name}/generate_stream": ("StreamPiece", ()),
    "POST /models/{name}": ("StreamPiece", ()),
}
# What is told by events alone, and is in no answer's body.
EVENTS: Sequence[type[BaseModel]] = (ChatToken, ThirdChatToken, CompletionToken)

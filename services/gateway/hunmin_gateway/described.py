"""What the gateway's OpenAPI file says of answers: every status that an operation has, in its dialect's shape.

A route declares the shape of its dialect's errors once, as `4XX`; here it becomes the statuses that there may be. It
changes the document alone: what is answered is decided elsewhere, and that both agree is tested by schemathesis.
"""

from collections.abc import Iterator
from typing import Any

from hunmin_contracts.errors import ErrorCode
from hunmin_contracts.tuning_jobs import JobEvent
from hunmin_kit.web.openapi import PROBLEM_TYPE, Description, event_of, meanings

from hunmin_gateway.openai.chat import ChatCompletionChunk
from hunmin_gateway.tgi.errors import is_tgi, status_of

Json = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
_ALWAYS = (ErrorCode.INTERNAL, ErrorCode.UNAVAILABLE, ErrorCode.DEADLINE_EXCEEDED)
_METERED = (ErrorCode.MODEL_NOT_FOUND, ErrorCode.OVERLOADED, ErrorCode.QUOTA_EXCEEDED)
_TUNES = (ErrorCode.NOT_FOUND, ErrorCode.MODEL_NOT_FOUND, ErrorCode.CONFLICT)
# What an operation may be refused with beside what its shape says: an id in its path, a body, a key.
_OWN: dict[str, tuple[ErrorCode, ...]] = {
    "POST /v1/completions": _METERED,
    "POST /v1/chat/completions": _METERED,
    "POST /v1/embeddings": _METERED,
    "POST /studio/v1/gradients": _METERED,
    "POST /studio/v1/score": _METERED,
    "POST /generate": _METERED,
    "POST /generate_stream": _METERED,
    "POST /": _METERED,
    "POST /models/{name}/generate": _METERED,
    "POST /models/{name}/generate_stream": _METERED,
    "POST /models/{name}": _METERED,
    "GET /info": (ErrorCode.MODEL_NOT_FOUND,),
    "GET /health": (ErrorCode.MODEL_NOT_FOUND,),
    "POST /v1/fine_tuning/jobs": _TUNES,
    "POST /v1/fine_tuning/jobs/{job_id}/cancel": (ErrorCode.CONFLICT,),
    "POST /tuning/v2/tasks": _TUNES,
    "DELETE /tuning/v2/tasks/{task_id}": (ErrorCode.CONFLICT,),
    "POST /studio/v1/soft-prompts": (ErrorCode.MODEL_NOT_FOUND, ErrorCode.CONFLICT),
    "DELETE /studio/v1/soft-prompts/{reference}": (ErrorCode.CONFLICT,),
    "POST /studio/v1/soft-prompts/compare": (ErrorCode.NOT_FOUND,),
    "POST /studio/v1/datasets/{reference}/report": (ErrorCode.MODEL_NOT_FOUND,),
    "POST /studio/v1/tuning/jobs": _TUNES,
    "POST /studio/v1/tuning/jobs/{job_id}/cancel": (ErrorCode.CONFLICT,),
    "POST /studio/v1/tuning/preview": (ErrorCode.NOT_FOUND, ErrorCode.MODEL_NOT_FOUND),
}
_FILES: dict[str, tuple[str, ...]] = {
    "GET /v1/files/{file_id}/content": ("application/octet-stream", "text/csv"),
    "GET /studio/v1/soft-prompts/{reference}/file": ("application/octet-stream",),
    "GET /studio/v1/soft-prompts/{reference}/peft": ("application/zip",),
    "GET /studio/v1/usage.csv": ("text/csv",),
    "GET /studio/v1/products/{name}/sample": ("text/csv", "text/tab-separated-values", "application/jsonl"),
}
_DONE = {"type": "object", "properties": {"data": {"const": "[DONE]"}}, "required": ["data"]}
# The schema of a stream's events, which an error may end, and the event that ends it else, where there is one.
_STREAMS: dict[str, tuple[str, tuple[Json, ...]]] = {
    "POST /v1/completions": ("Completion", (_DONE,)),
    "POST /v1/chat/completions": ("ChatCompletionChunk", (_DONE,)),
    "GET /studio/v1/tuning/jobs/{job_id}/events": ("JobEvent", ()),
    "POST /generate_stream": ("StreamPiece", ()),
    "POST /": ("StreamPiece", ()),
    "POST /models/{name}/generate_stream": ("StreamPiece", ()),
    "POST /models/{name}": ("StreamPiece", ()),
}
_WITHOUT_BODY = ("GET /health", "GET /models/{name}/health")
_ONLY_STREAMS = ("POST /generate_stream", "POST /models/{name}/generate_stream")
_LIMITS = {
    f"x-ratelimit-{word}-{what}": {
        "description": "As OpenAI's, where the account has such a limit.",
        "schema": {"type": "string"},
    }
    for what in ("requests", "tokens")
    for word in ("limit", "remaining", "reset")
}


def _complete(document: Json) -> None:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            _describe(f"{method.upper()} {path}", operation)


def _describe(name: str, operation: Json) -> None:
    responses = operation["responses"]
    shape = responses.pop("4XX", None)
    answer = next(response for status, response in responses.items() if status[0] in "23")
    if name in _FILES:
        file = {"schema": {"type": "string", "format": "binary"}}
        answer["content"] = dict.fromkeys(_FILES[name], file)
    if name in _WITHOUT_BODY:
        del answer["content"]
    if shape is None:
        return
    [error] = shape["content"].values()
    if name in _STREAMS:
        schema, ends = _STREAMS[name]
        events = [event_of({"$ref": _SCHEMAS + schema}), event_of(error["schema"])]
        content = {} if name in _ONLY_STREAMS else answer["content"]
        answer["content"] = content | {"text/event-stream": {"itemSchema": {"anyOf": [*events, *ends]}}}
    responses |= _errors(name, operation, error)
    if ErrorCode.QUOTA_EXCEEDED in _OWN.get(name, ()):
        for response in responses.values():
            response.setdefault("headers", {}).update(_LIMITS)


def _errors(name: str, operation: Json, error: Json) -> Json:
    media_type = PROBLEM_TYPE if error["schema"]["$ref"] == f"{_SCHEMAS}Problem" else "application/json"
    path = name.split()[1]
    is_translated = is_tgi(path) and not path.endswith("/health")
    found: dict[str, str] = {"500": "The answer was cut off"} if is_translated else {}
    for status, meaning in meanings(_codes(name, operation)).items():
        shown = str(status_of(status) if is_translated else status)
        found[shown] = f"{found[shown]}; {meaning}" if shown in found else meaning
    return {status: {"description": found[status], "content": {media_type: error}} for status in sorted(found)}


def _codes(name: str, operation: Json) -> Iterator[ErrorCode]:
    yield from _ALWAYS
    yield from _OWN.get(name, ())
    if operation.get("security"):
        yield ErrorCode.UNAUTHENTICATED
        yield ErrorCode.PERMISSION_DENIED
    if "{" in name:
        yield ErrorCode.NOT_FOUND
    if operation.get("parameters") or "requestBody" in operation:
        yield ErrorCode.INVALID_REQUEST
    if "requestBody" in operation:
        yield ErrorCode.TOO_LARGE
        if "application/json" in operation["requestBody"]["content"]:
            yield ErrorCode.UNSUPPORTED_MEDIA_TYPE


API_DESCRIPTION = Description(models=[ChatCompletionChunk, JobEvent], complete=_complete)

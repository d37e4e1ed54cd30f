"""What the gateway's OpenAPI file says of answers: every status that an operation has, in its dialect's shape.

A route declares the shape of its dialect's errors once, as `4XX`; here it becomes the statuses that there may be. It
changes the document alone: what is answered is decided elsewhere, and that both agree is tested by schemathesis.
"""

from collections.abc import Iterator
from typing import Any

from hunmin_contracts.errors import ERRORS, ErrorCode
from hunmin_contracts.tuning_jobs import JobEvent
from hunmin_kit.web.openapi import PROBLEM_TYPE, Description, event_of

from hunmin_gateway.clova.envelope import is_clova
from hunmin_gateway.clova.envelope import status_of as clova_status_of
from hunmin_gateway.idempotency.recorder import HEADER as IDEMPOTENCY_KEY
from hunmin_gateway.openai.chat import ChatCompletionChunk
from hunmin_gateway.operations import EVENTS, FILES, METERED, OWN, SCHEMAS, STREAMS
from hunmin_gateway.tgi.errors import is_tgi
from hunmin_gateway.tgi.errors import status_of as tgi_status_of

Json = dict[str, Any]

_ALWAYS = (ErrorCode.INTERNAL, ErrorCode.UNAVAILABLE, ErrorCode.DEADLINE_EXCEEDED)
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
_IDEMPOTENCY_KEY = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "required": False,
    "description": "A text of your own: the request is made once, however often it comes with it.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[!-~]([ -~]*[!-~])?$"},
}
_REPLAYED = {"description": "There, if an answer is sent again.", "schema": {"const": "true"}}
_LOCATION = {"description": "Where to go on.", "schema": {"type": "string"}, "required": True}
_HTML = {"text/html": {"schema": {"type": "string"}}}  # to whoever accepts it, a browser that is


def _complete(document: Json) -> None:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            _describe(f"{method.upper()} {path}", operation)


def _describe(name: str, operation: Json) -> None:
    if _is_made_once(name, operation):
        operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
    responses = operation["responses"]
    shape = responses.pop("4XX", None)
    status, answer = next((status, response) for status, response in responses.items() if status[0] in "23")
    if status[0] == "3":
        answer.setdefault("headers", {})["Location"] = _LOCATION
    if name in FILES:
        file = {"schema": {"type": "string", "format": "binary"}}
        answer["content"] = dict.fromkeys(FILES[name], file)
    if name in _WITHOUT_BODY:
        del answer["content"]
    if shape is None:
        return
    [error] = shape["content"].values()
    if name in STREAMS:
        schema, ends = STREAMS[name]
        events = [event_of({"$ref": SCHEMAS + schema}), event_of(error["schema"])]
        content = {} if name in _ONLY_STREAMS else answer["content"]
        answer["content"] = content | {"text/event-stream": {"itemSchema": {"anyOf": [*events, *ends]}}}
    responses |= _errors(name, operation, error)
    for response in responses.values():
        headers = response.setdefault("headers", {})
        headers |= _LIMITS if set(METERED) <= set(OWN.get(name, ())) else {}
        headers |= {"Idempotent-Replayed": _REPLAYED} if _is_made_once(name, operation) else {}


def _is_made_once(name: str, operation: Json) -> bool:
    return name.startswith("POST ") and bool(operation.get("security"))


def _errors(name: str, operation: Json, error: Json) -> Json:
    path = name.split()[1]
    media_type = PROBLEM_TYPE if error["schema"]["$ref"] == f"{SCHEMAS}Problem" else "application/json"
    content = {media_type: error} | (_HTML if path.startswith("/auth/") else {})
    meanings: dict[str, dict[str, None]] = {}  # in order, and each once
    if _is_translated_by_tgi(path):
        meanings["500"] = {"The answer was cut off": None}
    for code in sorted(_codes(name, operation), key=lambda one: ERRORS[one].status):
        meanings.setdefault(str(_status(code, path)), {})[ERRORS[code].title] = None
    return {status: {"description": "; ".join(meanings[status]), "content": content} for status in sorted(meanings)}


def _status(code: ErrorCode, path: str) -> int:
    if is_clova(path):
        return clova_status_of(code)
    return tgi_status_of(ERRORS[code].status) if _is_translated_by_tgi(path) else ERRORS[code].status


def _is_translated_by_tgi(path: str) -> bool:
    return is_tgi(path) and not path.endswith("/health")


def _codes(name: str, operation: Json) -> Iterator[ErrorCode]:
    yield from _ALWAYS
    yield from OWN.get(name, ())
    if operation.get("security"):
        yield ErrorCode.UNAUTHENTICATED
        yield ErrorCode.PERMISSION_DENIED
    if _is_made_once(name, operation):
        yield ErrorCode.CONFLICT
        yield ErrorCode.IDEMPOTENCY_KEY_REUSED
    if "{" in name:
        yield ErrorCode.NOT_FOUND
    if operation.get("parameters") or "requestBody" in operation:
        yield ErrorCode.INVALID_REQUEST
    if "requestBody" in operation:
        yield ErrorCode.TOO_LARGE
        if "application/json" in operation["requestBody"]["content"]:
            yield ErrorCode.UNSUPPORTED_MEDIA_TYPE


API_DESCRIPTION = Description(models=[ChatCompletionChunk, JobEvent, *EVENTS], complete=_complete)

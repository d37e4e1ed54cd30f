"""The OpenAPI file of a service: what FastAPI sees of its routes, and every Endpoint, described by its declaration.

It does not know what a service does, and is asked for once: whoever never reads the file pays nothing for it.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from hunmin_contracts.endpoint import AnyEndpoint, StreamEndpoint, UploadEndpoint
from hunmin_contracts.errors import ERRORS, ErrorCode, Problem
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from hunmin_kit.web.request_id import HEADER

Json = dict[str, Any]
Mode = Literal["validation", "serialization"]

BODILESS = ("GET", "DELETE")
PROBLEM_TYPE = "application/problem+json"
# What any call may be answered with, whatever it is; the second, where it has a body.
_ALWAYS = (ErrorCode.INVALID_REQUEST, ErrorCode.INTERNAL, ErrorCode.UNAVAILABLE, ErrorCode.DEADLINE_EXCEEDED)
_OF_BODIES = (ErrorCode.TOO_LARGE,)
_OF_JSON = (ErrorCode.UNSUPPORTED_MEDIA_TYPE,)
_DECLARED = "hunmin_endpoint"
_COMPONENTS = "#/components/schemas/"
_FIELD = re.compile(r"{(\w+)}")
_REQUEST_ID: Json = {"description": "Names this request in the logs.", "schema": {"type": "string"}, "required": True}
_RETRY_AFTER: Json = {"description": "Seconds to wait, where that is known.", "schema": {"type": "integer"}}
_CHALLENGE: Json = {"schema": {"type": "string", "const": "Bearer"}, "required": True}
_ADDED_BY_FASTAPI = ("HTTPValidationError", "ValidationError")


@dataclass(frozen=True)
class Description:
    """What a service adds to its document: schemas of these models, and what `complete` writes into it."""

    models: Sequence[type[BaseModel]]
    complete: Callable[[Json], None]


class DescribedApp(FastAPI):
    """An application whose `/openapi.json` tells of Endpoints too, of what every answer has, and what else it is told.

    `description_of_service` is to be set before the document is first asked for.
    """

    description_of_service: Description | None = None
    _described: Json | None = None

    def openapi(self) -> Json:
        """Return the document; it is made once."""
        document = super().openapi()
        if document is not self._described:
            _complete(document, list(_declared(self)), self.description_of_service)
            self._described = document
        return document


def declare(answer: Callable[..., Any], endpoint: AnyEndpoint) -> None:
    """Note that this function of a route answers `endpoint`."""
    setattr(answer, _DECLARED, endpoint)


def problem_responses(codes: Iterable[ErrorCode]) -> dict[int | str, Json]:
    """Describe answers by a problem document, one for each status that these codes have."""
    return {
        status: {"description": what, "content": {PROBLEM_TYPE: {"schema": {"$ref": f"{_COMPONENTS}Problem"}}}}
        for status, what in meanings(codes).items()
    }


def meanings(codes: Iterable[ErrorCode]) -> dict[int, str]:
    """Return what each status of these codes means."""
    titles: dict[int, list[str]] = {}
    for code in codes:
        titles.setdefault(ERRORS[code].status, []).append(ERRORS[code].title)
    return {status: "; ".join(titles[status]) for status in sorted(titles)}


def _declared(app: FastAPI) -> Iterator[tuple[AnyEndpoint, str]]:
    for route in iter_route_contexts(app.routes):
        endpoint = getattr(route.endpoint, _DECLARED, None)
        if endpoint is not None:
            yield endpoint, str(route.name)


def _complete(document: Json, endpoints: list[tuple[AnyEndpoint, str]], more: Description | None) -> None:
    """Add the endpoints, what the service has to add, and what every answer has."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _ADDED_BY_FASTAPI:
        schemas.pop(name, None)
    wanted: list[tuple[type[BaseModel], Mode]] = [(Problem, "serialization")]
    for endpoint, _ in endpoints:
        wanted += [(endpoint.request, "validation"), (_answered(endpoint), "serialization")]
    wanted += [(model, "serialization") for model in (more.models if more is not None else ())]
    named, definitions = models_json_schema(wanted, ref_template=_COMPONENTS + "{model}")
    found: Json = definitions.get("$defs", {})
    paths = document["paths"]
    for endpoint, name in endpoints:
        operation = _Operation(endpoint, name, named, found).describe()
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    if more is not None:
        more.complete(document)
    for item in paths.values():
        for operation in item.values():
            _mend(operation)
    used = _used(paths, {**found, **schemas})
    document["components"]["schemas"] = {name: _exact({**found, **schemas}[name]) for name in sorted(used)}
    document["paths"] = _exact(paths)


def _mend(operation: Json) -> None:
    """Take out what FastAPI adds and nothing here does, a 422 and nulls in URLs; add the headers of every answer."""
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _without_null(parameter["schema"])
    responses = operation["responses"]
    if any(name in str(responses.get("422")) for name in _ADDED_BY_FASTAPI):
        del responses["422"]
    for status, response in responses.items():
        headers = response.setdefault("headers", {})
        headers[HEADER] = _REQUEST_ID
        if status in ("429", "503"):
            headers["Retry-After"] = _RETRY_AFTER
        if status == "401":
            headers["WWW-Authenticate"] = _CHALLENGE


def _answered(endpoint: AnyEndpoint) -> type[BaseModel]:
    model: type[BaseModel] = endpoint.event if isinstance(endpoint, StreamEndpoint) else endpoint.response
    return model


def takes_file(endpoint: AnyEndpoint) -> bool:
    """Tell whether a call's body is a line of JSON and a file."""
    return isinstance(endpoint, UploadEndpoint) or (isinstance(endpoint, StreamEndpoint) and endpoint.takes_file)


class _Operation:
    """One endpoint, as an operation object of OpenAPI 3.1."""

    def __init__(self, endpoint: AnyEndpoint, name: str, named: Any, definitions: Json) -> None:
        self._endpoint, self._name, self._named = endpoint, name, named
        request = endpoint.request
        self._ref: Json = named[request, "validation"]
        self._schema: Json = definitions[self._ref["$ref"].removeprefix(_COMPONENTS)]
        self._in_path = _FIELD.findall(endpoint.path)
        self._has_body = endpoint.method not in BODILESS

    def describe(self) -> Json:
        endpoint = self._endpoint
        operation: Json = {
            "summary": self._name.replace("_", " ").capitalize(),
            "description": inspect.getdoc(endpoint.request) or "",
            "operationId": re.sub(r"\W+", "_", f"{endpoint.method.lower()}{endpoint.path}").strip("_"),
            "parameters": [self._parameter(name) for name in self._in_path],
            "responses": {"200": self._answer(), **self._errors()},
        }
        if self._has_body:
            operation["requestBody"] = {"required": True, "content": self._body()}
        else:
            rest = [name for name in self._schema.get("properties", {}) if name not in self._in_path]
            operation["parameters"] += [self._parameter(name) for name in rest]
        return operation

    def _parameter(self, name: str) -> Json:
        schema = _without_null(self._schema["properties"][name])
        place = "path" if name in self._in_path else "query"
        is_required = place == "path" or name in self._schema.get("required", [])
        return {"name": name, "in": place, "required": is_required, "schema": schema}

    def _body(self) -> Json:
        if not takes_file(self._endpoint):
            return {"application/json": {"schema": self._rest()}}
        said = "One line of JSON, described by `x-head`, a line feed, and the file's bytes."
        schema = {"type": "string", "format": "binary", "description": said, "x-head": self._rest()}
        return {"application/octet-stream": {"schema": schema}}

    def _rest(self) -> Json:
        """Describe the request without the fields that are in the path."""
        if not self._in_path:
            return self._ref
        kept = {name: part for name, part in self._schema["properties"].items() if name not in self._in_path}
        required = [name for name in self._schema.get("required", []) if name not in self._in_path]
        return {**self._schema, "properties": kept, "required": required}

    def _answer(self) -> Json:
        model = _answered(self._endpoint)
        said = (inspect.getdoc(model) or "").partition("\n")[0]
        ref = self._named[model, "serialization"]
        if not isinstance(self._endpoint, StreamEndpoint):
            return {"description": said, "content": {"application/json": {"schema": ref}}}
        events = [event_of(ref), event_of({"$ref": f"{_COMPONENTS}Problem"}, name="error")]
        stream = {"itemSchema": {"anyOf": events}}  # OpenAPI 3.2's word, which FastAPI writes into 3.1 too
        return {"description": f"Server-sent events. {said}", "content": {"text/event-stream": stream}}

    def _errors(self) -> Json:
        codes = [*_ALWAYS, *self._endpoint.errors]
        if self._has_body:
            codes += _OF_BODIES
            codes += [] if takes_file(self._endpoint) else _OF_JSON
        return {str(status): response for status, response in problem_responses(codes).items()}


def event_of(data: Json, *, name: str | None = None) -> Json:
    """Describe a server-sent event, whose data is JSON of this schema."""
    fields: Json = {"data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data}}
    if name is None:
        return {"type": "object", "properties": fields, "required": ["data"]}
    return {"type": "object", "properties": fields | {"event": {"const": name}}, "required": ["data", "event"]}


def _exact(value: Any) -> Any:
    """Write whole numbers as such: FastAPI makes floats of bounds, and readers then take them for inexact."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_exact(part) for part in value]
    return {key: _exact(part) for key, part in value.items()} if isinstance(value, dict) else value


def _without_null(schema: Json) -> Json:
    """Return what a value may be in a URL, where there is no null: what is left out is null."""
    if "anyOf" not in schema:
        return schema
    options = [option for option in schema["anyOf"] if option != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return {**rest, **options[0]} if len(options) == 1 else {**rest, "anyOf": options}


def _used(part: Any, schemas: Json) -> set[str]:
    """Return the names of all schemas that are referred to from `part`, and from them."""
    used: set[str] = set()
    open_: list[Any] = [part]
    while open_:
        value = open_.pop()
        if isinstance(value, list):
            open_ += value
        elif isinstance(value, dict):
            open_ += value.values()
            name = str(value.get("$ref", "")).removeprefix(_COMPONENTS)
            if name in schemas and name not in used:
                used.add(name)
                open_.append(schemas[name])
    return used

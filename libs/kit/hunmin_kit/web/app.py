"""The FastAPI application that every service starts from, with all that no service should have to think of."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from hunmin_contracts.errors import ErrorCode, HunminError
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import TracerProvider
from starlette.exceptions import HTTPException

from hunmin_kit.observe.metrics import Metrics
from hunmin_kit.web.edge import ERROR_KEY, OBSERVATION_PATHS, Edge, is_json
from hunmin_kit.web.errors import ErrorRenderer, problem_of, respond
from hunmin_kit.web.openapi import DescribedApp, Description

ReadyCheck = Callable[[], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class AppParts:
    """What the process gives to a service's application."""

    service: str
    metrics: Metrics
    tracer_provider: TracerProvider
    body_limit_bytes: int
    upload_limit_bytes: int
    check_ready: ReadyCheck  # what the process itself needs; raises HunminError(UNAVAILABLE)
    is_draining: Callable[[], bool]  # whether the process is about to end


def build_app(
    parts: AppParts,
    *,
    title: str,
    ready: ReadyCheck | None = None,
    render_error: ErrorRenderer | None = None,
    upload_paths: Iterable[str] = (),
    description: Description | None = None,
) -> FastAPI:
    """Return an application with errors, request ids, limits, traces, metrics and health on it, and no other route."""

    async def answer_error(request: Request, error: Exception) -> Response:
        problem = problem_of(_clarify(request, error))
        request.scope[ERROR_KEY] = problem.code
        response = respond(request, problem, render_error)
        for name, value in (getattr(error, "headers", None) or {}).items():
            response.headers.setdefault(name, value)
        if problem.code is ErrorCode.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = ", ".join(_methods(app, request.url.path)) or response.headers.get("Allow", "")
        return response

    app = DescribedApp(
        title=title,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={kind: answer_error for kind in (HunminError, RequestValidationError, HTTPException)},
        telemetry={
            "tracer_provider": parts.tracer_provider,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": _is_observation,
        },
    )
    app.description_of_service = description
    app.add_middleware(
        Edge,
        service=parts.service,
        metrics=parts.metrics,
        body_limit_bytes=parts.body_limit_bytes,
        upload_limit_bytes=parts.upload_limit_bytes,
        upload_paths=frozenset(upload_paths),
        on_exception=answer_error,
        is_draining=parts.is_draining,
    )
    _add_observation(app, parts, ready)
    return app


def _add_observation(app: FastAPI, parts: AppParts, ready: ReadyCheck | None) -> None:
    @app.get("/livez", include_in_schema=False)
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> dict[str, str]:
        with suppress_instrumentation():  # a probe every few seconds is no trace anyone wants
            await parts.check_ready()
            if ready is not None:
                await ready()
        return {"status": "ready"}

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        content, media_type = parts.metrics.exposition()
        return Response(content, media_type=media_type)


def _methods(app: FastAPI, path: str) -> list[str]:
    """Return every method that this path answers: the router knows those of the first route alone."""
    routes = iter_route_contexts(app.routes)
    return sorted({method for route in routes if route.path_regex.match(path) for method in route.methods or ()})


def _is_observation(scope: MutableMapping[str, Any]) -> bool:
    return scope["path"] in OBSERVATION_PATHS


def _clarify(request: Request, error: Exception) -> Exception:
    """Say what is wrong when a body could not even be looked at: FastAPI calls all of it an error of parsing."""
    if isinstance(error.__cause__, HunminError):  # the edge's, while a form was read
        return error.__cause__
    if not isinstance(error, RequestValidationError) or any(item["loc"] != ("body",) for item in error.errors()):
        return error
    if error.body is None:
        return HunminError(ErrorCode.INVALID_REQUEST, "The request has no body. Send a JSON object.")
    if isinstance(error.body, bytes) and not is_json(request.headers.get("content-type")):  # bytes: not parsed
        return HunminError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "The body is not declared as JSON. Send application/json.")
    return error

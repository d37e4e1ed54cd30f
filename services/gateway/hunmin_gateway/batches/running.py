"""Runs one line of a batch, as the request would be run that it is: in this process, by the dialect's own code."""

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import new_request_id
from hunmin_kit.web import request_context
from opentelemetry.trace import Tracer
from structlog.contextvars import bound_contextvars

from hunmin_gateway.batches.batch import ClaimedLine, Dialect, LineResult
from hunmin_gateway.batches.patience import MAX_ATTEMPTS, Wait, patience


async def run_line(line: ClaimedLine, dialect: Dialect, tracer: Tracer) -> LineResult | Wait:
    """Return the answer to a line, or how long to wait before it is tried again. Cancelling it cuts the request."""
    request_id = new_request_id()
    with (
        tracer.start_as_current_span("batch line", attributes={"hunmin.batch.id": line.batch_id}),
        request_context(request_id),
        bound_contextvars(request_id=request_id, batch_id=line.batch_id),
    ):
        try:
            if line.attempts > MAX_ATTEMPTS:
                raise HunminError(ErrorCode.INTERNAL, "The gateway ended each time that it made this request.")
            body = await dialect.answer(line.endpoint, line.body, line.principal)
        except Exception as error:  # the worker's edge: a line fails alone
            if (wait := patience(error, line.attempts)) is not None:
                return wait
            status, body = dialect.failure(line.endpoint, error)
            return LineResult(request_id, status, body)
    return LineResult(request_id, 200, body)

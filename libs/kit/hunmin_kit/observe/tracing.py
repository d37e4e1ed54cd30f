"""Traces: a provider per service, never the global one, so that two services in one process stay two services."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from hunmin_contracts.errors import HunminError
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, DEFAULT_ON

FLUSH_S = 3.0


class _Ids(IdGenerator):
    """Draws ids from the system. OpenTelemetry's own draw from `random`, which belongs to whoever has seeded it."""

    def generate_span_id(self) -> int:
        """Return 64 bits, not all of them 0."""
        return secrets.randbits(64) or 1

    def generate_trace_id(self) -> int:
        """Return 128 bits, not all of them 0."""
        return secrets.randbits(128) or 1


def tracer_provider(
    service: str, *, otlp_endpoint: str | None = None, exporter: SpanExporter | None = None
) -> TracerProvider:
    """Return the provider of `service`. Spans go to `otlp_endpoint` in batches, to `exporter` at once."""
    resource = Resource({SERVICE_NAME: f"hunmin-{service}"})
    # Where nothing is exported nothing is recorded; ids are made and handed on all the same.
    sampler = ALWAYS_OFF if otlp_endpoint is None and exporter is None else DEFAULT_ON
    provider = TracerProvider(resource=resource, sampler=sampler, id_generator=_Ids(), shutdown_on_exit=False)
    if otlp_endpoint is not None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
            OTLPSpanExporter,  # slow to load, seldom wanted
        )

        address = f"{otlp_endpoint.rstrip('/')}/v1/traces"
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address, timeout=FLUSH_S)))
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def current_trace_id() -> str | None:
    """Return the id of the trace that this code runs in, in hexadecimal, if any."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


@contextmanager
def call_span(tracer: trace.Tracer, name: str, attributes: Mapping[str, str]) -> Iterator[trace.Span]:
    """Open the span of a call to something else; an error that leaves the block is told of by its kind alone.

    It is never the current span: a stream's block may be left in another context than the one it was entered in. Of a
    trace that is not recorded there is nothing to be made: the block has the span that it stands in.
    """
    current = trace.get_current_span()
    place = current.get_span_context()
    if place.is_valid and not place.trace_flags.sampled:
        yield current
        return
    span = tracer.start_span(name, kind=trace.SpanKind.CLIENT, attributes=attributes)
    try:
        yield span
    except BaseException as error:
        if not isinstance(error, GeneratorExit):
            span.set_attribute("error.type", error.code if isinstance(error, HunminError) else type(error).__qualname__)
            span.set_status(trace.StatusCode.ERROR)
        raise
    finally:
        span.end()

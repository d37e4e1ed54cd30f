"""Traces: a provider per service, never the global one, so that two services in one process stay two services."""

import secrets

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

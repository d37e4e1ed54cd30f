"""Traces: a provider per service, never the global one, so that two services in one process stay two services."""

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter

FLUSH_S = 3.0


def tracer_provider(
    service: str, *, otlp_endpoint: str | None = None, exporter: SpanExporter | None = None
) -> TracerProvider:
    """Return the provider of `service`. Spans go to `otlp_endpoint` in batches, to `exporter` at once."""
    provider = TracerProvider(resource=Resource({SERVICE_NAME: f"hunmin-{service}"}), shutdown_on_exit=False)
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

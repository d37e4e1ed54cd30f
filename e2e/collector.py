"""A collector of traces (OTLP over HTTP, protobuf), which keeps them in memory."""

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

_FLUSH_MS = 200


@dataclass(frozen=True)
class Span:
    """What a service did. Ids are in hexadecimal; `parent_id` is empty where it is the first of its trace."""

    service: str
    name: str
    trace_id: str
    id: str
    parent_id: str


class Collector:
    """A context. `environ` leads a studio to it."""

    def __init__(self) -> None:
        self._bodies: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector._bodies.append(self.rfile.read(int(self.headers["content-length"])))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def environ(self) -> dict[str, str]:
        """What a studio is told; spans come soon instead of every five seconds."""
        port = self._server.server_address[1]
        return {"HUNMIN_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": str(_FLUSH_MS)}

    def spans(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace that have come so far."""
        found = []
        for body in tuple(self._bodies):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
                for scope in resource.scope_spans:
                    found += [
                        Span(
                            service=attributes["service.name"],
                            name=span.name,
                            trace_id=span.trace_id.hex(),
                            id=span.span_id.hex(),
                            parent_id=span.parent_span_id.hex(),
                        )
                        for span in scope.spans
                        if span.trace_id.hex() == trace_id
                    ]
        return found

    def __enter__(self) -> "Collector":
        """Listen."""
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

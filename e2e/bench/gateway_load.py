"""Clients that cost next to nothing: each has a connection, and sends the same request when the last is answered."""

import asyncio
import statistics
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What came of it."""

    requests_per_s: float
    median_ms: float
    p95_ms: float


class _Client(asyncio.Protocol):
    def __init__(self, request: bytes, until: float) -> None:
        self._request = request
        self._until = until
        self._received = b""
        self.latencies: list[float] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(error or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._received[:end].lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(self._received) < end + 4 + length:
            return
        if not head.startswith(b"http/1.1 200"):
            self.ended.set_exception(RuntimeError(self._received.decode()))
            return
        now = time.perf_counter()
        self.latencies.append(now - self._sent)
        self._received = b""
        if now < self._until:
            self._send()
        elif not self.ended.done():
            self.ended.set_result(None)

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)


async def load(ports: list[int], request: bytes, *, clients: int, for_s: float) -> Load:
    """Let `clients`, shared out over the ports, ask for so long."""
    loop = asyncio.get_running_loop()
    begin = time.perf_counter()
    asking = [
        (await loop.create_connection(lambda: _Client(request, begin + for_s), "127.0.0.1", ports[n % len(ports)]))[1]
        for n in range(clients)
    ]
    await asyncio.gather(*(client.ended for client in asking))
    took = time.perf_counter() - begin
    latencies = sorted(latency for client in asking for latency in client.latencies)
    return Load(
        requests_per_s=len(latencies) / took,
        median_ms=statistics.median(latencies) * 1000,
        p95_ms=latencies[int(len(latencies) * 0.95)] * 1000,
    )

"""Spreads the requests to one service over its replicas: consistent hashing with bounded loads.

Requests of one affinity go to one replica, which may still hold what they have in common, as long as it has no more
than a quarter above the mean of what runs; then to the next in their order (Mirrokni, Thorup, Zadimoghaddam, arXiv
1608.01350). The order is that of rendezvous hashing: when a replica comes or goes, the others keep their affinities.
"""

import asyncio
import hashlib
import math
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

import structlog

from hunmin_kit.web.transport import Answer, Request, Transport, Unreachable

ABOVE_MEAN = 1.25  # of what runs, that a replica may have
_LOOK_S = 2.0  # between two looks for replicas: one that drains leaves the name first (HUNMIN_DRAIN_DELAY_S)
_AVOID_S = 30.0  # how long one that refused a connection is tried last: a name may lead to it for as long
_log = structlog.get_logger()

Replicas = Callable[[], Awaitable[Sequence[str]]]  # the hosts that a service's name leads to


class BalancedTransport(Transport):
    """Sends each request to one of `replicas` through `transport`, which pools connections to all of them."""

    def __init__(self, transport: Transport, replicas: Replicas) -> None:
        self._transport = transport
        self._find = replicas
        self._replicas: Sequence[str] = ()
        self._looked_at = -math.inf
        self._looking: asyncio.Future[None] | None = None
        self._running: Counter[str] = Counter()
        self._avoided: dict[str, float] = {}

    async def send(self, request: Request) -> Answer:
        """Send it; a replica that cannot be reached is passed over for the next."""
        headers = request.headers.copy()
        headers.setdefault("host", request.host)  # the service's, whichever replica it goes to
        tried: set[str] = set()
        while True:
            replica = await self._choose(request.affinity, tried)
            tried.add(replica)
            self._running[replica] += 1
            try:
                answer = await self._transport.send(
                    replace(request, url=request.url.with_host(replica), headers=headers)
                )
            except Unreachable:
                self._release(replica)
                self._avoided[replica] = time.monotonic() + _AVOID_S
                _log.info("service.replica.refused", replica=replica, service=request.host)
                if len(tried) >= len(self._replicas):
                    raise
            except BaseException:
                self._release(replica)
                raise
            else:
                return _Counted(answer, partial(self._release, replica))

    async def aclose(self) -> None:
        """Close the transport below."""
        await self._transport.aclose()

    async def _choose(self, affinity: str | None, tried: set[str]) -> str:
        await self._look()
        if not self._replicas:
            raise Unreachable("the service's name leads nowhere")
        now = time.monotonic()
        able = [replica for replica in self._replicas if replica not in tried]
        willing = [replica for replica in able if self._avoided.get(replica, 0) < now] or able or self._replicas
        if affinity is None:
            return min(willing, key=lambda replica: (self._running[replica], _score("", replica)))
        return choose(willing, self._running, affinity)

    async def _look(self) -> None:
        if time.monotonic() - self._looked_at < _LOOK_S:
            return
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._look_again())
        if not self._replicas:
            await asyncio.shield(self._looking)  # else those that are known do until others are

    async def _look_again(self) -> None:
        try:
            self._replicas = await self._find()
            self._avoided = {host: until for host, until in self._avoided.items() if host in self._replicas}
        except OSError as error:  # the name server is away: those that are known do
            _log.warning("service.replicas.not_found", error=str(error))
        finally:
            self._looking = None
        if self._replicas:  # who knows none looks again for each request
            self._looked_at = time.monotonic()

    def _release(self, replica: str) -> None:
        self._running[replica] -= 1
        if not self._running[replica]:
            del self._running[replica]


def choose(replicas: Sequence[str], running: Counter[str], affinity: str) -> str:
    """Return the first replica, in the order of `affinity`, that has room for one more."""
    most = math.ceil(ABOVE_MEAN * (sum(running[replica] for replica in replicas) + 1) / len(replicas))
    ordered = sorted(replicas, key=lambda replica: _score(affinity, replica))
    return next(replica for replica in ordered if running[replica] < most)


def named(host: str, port: int | None) -> Replicas:
    """Return a function that looks up every address of `host`: of a headless Service those of its ready pods."""

    async def look() -> Sequence[str]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return sorted({str(address[0]) for *_, address in found})

    return look


def _score(affinity: str, replica: str) -> bytes:
    return hashlib.blake2b(f"{affinity}\n{replica}".encode(), digest_size=8).digest()


class _Counted(Answer):
    """An answer that runs until it is closed."""

    def __init__(self, answer: Answer, on_close: Callable[[], None]) -> None:
        super().__init__(answer.status)
        self._answer = answer
        self._on_close: Callable[[], None] | None = on_close

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._answer)

    async def aclose(self) -> None:
        try:
            await self._answer.aclose()
        finally:
            on_close, self._on_close = self._on_close, None
            if on_close is not None:
                on_close()

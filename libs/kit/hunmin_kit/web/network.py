"""The transport to a service in another process: pooled HTTP/1.1 connections.

aiohttp's pool and parser below httpx: httpcore's own looks at every connection for each request and each answer, which
with a few dozen of them takes longer than all else that a request does.
"""

import ssl
from functools import cache

import httpx
from httpx_aiohttp import AiohttpTransport

_KEEPALIVE_S = 5.0  # shorter than the server's, so that we never send on a connection it is about to close


class _Network(AiohttpTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except httpx.ConnectError:  # nothing of the request was sent
            return await super().handle_async_request(request)


def network_transport(*, max_connections: int) -> httpx.AsyncBaseTransport:
    """Return a pool of at most `max_connections`; a failed connect is tried once more."""
    limits = httpx.Limits(
        max_connections=max_connections, max_keepalive_connections=max_connections, keepalive_expiry=_KEEPALIVE_S
    )
    return _Network(verify=_tls(), limits=limits, trust_env=False)


@cache
def _tls() -> ssl.SSLContext:
    """Read the authorities that this machine trusts, once: 40 ms."""
    return httpx.create_ssl_context(trust_env=False)

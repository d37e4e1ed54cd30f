"""The transport to a service in another process: pooled HTTP/1.1 connections."""

import ssl
from functools import cache

import httpx

_KEEPALIVE_S = 5.0  # shorter than the server's, so that we never send on a connection it is about to close


def network_transport(*, max_connections: int) -> httpx.AsyncBaseTransport:
    """Return a pool of at most `max_connections`; a failed connect is tried once more."""
    limits = httpx.Limits(
        max_connections=max_connections, max_keepalive_connections=max_connections, keepalive_expiry=_KEEPALIVE_S
    )
    return httpx.AsyncHTTPTransport(verify=_tls(), limits=limits, retries=1, trust_env=False)


@cache
def _tls() -> ssl.SSLContext:
    """Read the authorities that this machine trusts, once: 40 ms."""
    return httpx.create_ssl_context(trust_env=False)

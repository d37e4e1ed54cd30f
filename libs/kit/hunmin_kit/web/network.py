"""The transport to a service in another process: pooled HTTP/1.1 connections."""

import httpx

_KEEPALIVE_S = 5.0  # shorter than the server's, so that we never send on a connection it is about to close


def network_transport(*, max_connections: int) -> httpx.AsyncBaseTransport:
    """Return a pool of at most `max_connections`; a failed connect is tried once more."""
    limits = httpx.Limits(
        max_connections=max_connections, max_keepalive_connections=max_connections, keepalive_expiry=_KEEPALIVE_S
    )
    return httpx.AsyncHTTPTransport(limits=limits, retries=1, trust_env=False)

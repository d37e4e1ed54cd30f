"""HTTP to one remote server: JSON out, server-sent events back, every failure as a HunminError. Knows no model."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

import httpx
from hunmin_contracts.errors import ErrorCode, HunminError

_CONNECT_S = 5.0
_SILENCE_S = 120.0  # between two events
_PROBE_S = 5.0
_RETRY_AFTER_S = 2
_TEXT_LIMIT = 400  # characters of a remote message that are shown
_CALLERS_FAULT = {
    400: ErrorCode.INVALID_PARAMETER,
    404: ErrorCode.INVALID_PARAMETER,
    413: ErrorCode.TOO_LARGE,
    422: ErrorCode.INVALID_PARAMETER,
    429: ErrorCode.OVERLOADED,
}


class RemoteServer:
    """A server at a URL. `name` is the model's, for messages."""

    def __init__(self, name: str, url: str, *, api_key: str | None) -> None:
        self._name = name
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            headers=headers,
            timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def get(self, path: str) -> httpx.Response:
        """Return a good answer to a GET, or raise as `events` does."""
        with self._as_hunmin_errors():
            response = await self._http.get(path, timeout=_PROBE_S)
        if response.is_error:
            raise self.error(response.status_code, response.text)
        return response

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """POST `body` and yield the JSON of each event until `[DONE]` or the end; closing the generator hangs up."""
        with self._as_hunmin_errors():
            async with self._http.stream("POST", path, json=body) as response:
                if response.is_error:
                    raise self.error(response.status_code, (await response.aread()).decode(errors="replace"))
                async with aclosing(_data(response.aiter_bytes())) as found:
                    async for data in found:
                        if data == b"[DONE]":
                            return
                        yield self._event(data)

    def error(self, status: int, body: str) -> HunminError:
        """Return what an answer with an error status means to our caller."""
        message = _message(body)
        code = _CALLERS_FAULT.get(status)
        if code is ErrorCode.OVERLOADED:
            return HunminError(
                code,
                f"The server that computes {self._name} is busy: {message}. Send the request again later.",
                retry_after_s=_RETRY_AFTER_S,
            )
        if code is not None:
            return HunminError(code, f"The server that computes {self._name} refuses the request: {message}")
        return self.unavailable(f"answered {status}: {message}")

    def unavailable(self, what: str) -> HunminError:
        """Return the error of a server that does not do its part."""
        return HunminError(
            ErrorCode.UNAVAILABLE,
            f"The server that computes {self._name} {what}. Try again shortly.",
            retry_after_s=_RETRY_AFTER_S,
        )

    def _event(self, data: bytes) -> dict[str, Any]:
        try:
            event = json.loads(data)
        except ValueError as error:
            raise self.unavailable("sent an event that is not JSON") from error
        if not isinstance(event, dict):
            raise self.unavailable("sent an event that is not an object")
        return event

    @contextmanager
    def _as_hunmin_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise self.unavailable("cannot be reached") from error
        except httpx.TimeoutException as error:
            raise HunminError(
                ErrorCode.DEADLINE_EXCEEDED,
                f"The server that computes {self._name} did not answer in time. Ask for less, or try again later.",
            ) from error
        except httpx.HTTPError as error:
            raise self.unavailable("broke off its answer") from error


async def _data(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield what follows `data:` on each line. Lines end with a line feed only: JSON may hold U+2028 as it is."""
    buffer = b""
    async for chunk in chunks:
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip()


def _message(body: str) -> str:
    """Return the message in the body of vLLM's errors (OpenAI's shape) or TGI's, else the body."""
    try:
        error = json.loads(body)["error"]
        text = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        text = body
    return str(text)[:_TEXT_LIMIT].strip().removesuffix(".")

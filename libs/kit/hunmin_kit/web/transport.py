"""What carries a request to another service: within the process, over the network, or to one of several replicas.

The transports are in `inprocess.py`, `network.py` and `balancing.py`. They are not httpx's, since its requests and
responses take as long to make as all else that a call does.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from multidict import CIMultiDict
from yarl import URL


class Unreachable(Exception):
    """Nobody has seen anything of the request."""


class Crowded(Exception):
    """All connections that we may have are in use."""


class BrokenOff(Exception):
    """The connection ended before the answer did; what became of the request is not known."""


@dataclass(frozen=True)
class Request:
    """What is sent. A body of pieces is read once, as it is sent.

    Of several replicas the one is asked that suits the `affinity`, a text, where there is one.
    """

    method: str
    url: URL
    headers: CIMultiDict[str]
    body: bytes | AsyncIterable[bytes] = b""
    affinity: str | None = None

    @property
    def host(self) -> str:
        """Host and port, as the header Host has them."""
        return self.url.host_port_subcomponent or ""


class Answer(ABC):
    """An answer whose head has come; iterate it once for the pieces of its body, which raises BrokenOff.

    Whoever has it closes it, read or not; the callee of one that was not read to its end is told. Closing it again does
    no harm.
    """

    def __init__(self, status: int) -> None:
        self.status = status

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[bytes]: ...

    @abstractmethod
    async def aclose(self) -> None: ...

    async def read(self) -> bytes:
        """Return the whole body."""
        return b"".join([piece async for piece in self])


class Transport(ABC):
    """A way to one service."""

    @abstractmethod
    async def send(self, request: Request) -> Answer:
        """Send it, and return as soon as the answer's head is there; raise Unreachable, Crowded or BrokenOff."""

    @abstractmethod
    async def aclose(self) -> None:
        """Cancel what still runs, and let go of every connection."""

"""Text of a growing completion: what may be shown already, and where a stop string ends it. Must not know tensors."""

from typing import Protocol


class StreamDecoder(Protocol):
    """Decodes token by token; holds back the bytes of an unfinished character."""

    def push(self, token_id: int) -> str:
        """Return the text that is complete with this token."""
        ...

    def flush(self) -> str:
        """Return what was held back."""
        ...


class TokenText(Protocol):
    """What the engine must know of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    @property
    def eos_id(self) -> int:
        """Id of the token that ends a text."""
        ...

    def decoder(self) -> StreamDecoder:
        """Start decoding a stream."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Decode a whole text."""
        ...

    def token_text(self, token_id: int) -> str:
        """Return a token as text for people."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for."""
        ...


class StopText:
    """Releases text up to the first stop string, and never a part of one: what may begin it is held back."""

    def __init__(self, decoder: StreamDecoder, stop: tuple[str, ...]) -> None:
        """Decode with `decoder`; each of `stop` is at least one character long."""
        self._decoder = decoder
        self._stop = stop
        self._held = ""
        self.decoded_length = 0  # characters of the completion so far, held ones included
        self.released_length = 0
        self.stop: str | None = None  # the stop string that ended it

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string has come."""
        return self.stop is not None

    def push(self, token_id: int) -> str:
        """Take the next token and return the text that is safe with it; nothing more once `is_stopped`."""
        return self._take(self._decoder.push(token_id))

    def finish(self) -> str:
        """End the completion without a stop string and return what is left."""
        text = self._take(self._decoder.flush())
        if not self.is_stopped:
            text += self._release(self._held)
        return text

    def _take(self, new: str) -> str:
        self.decoded_length += len(new)
        if not self._stop:
            return self._release(new)
        self._held += new
        ends = [(at, stop) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if ends:
            at, self.stop = min(ends)
            return self._release(self._held[:at])
        safe = len(self._held) - max(_overlap(self._held, stop) for stop in self._stop)
        return self._release(self._held[:safe])

    def _release(self, text: str) -> str:
        self._held = self._held[len(text) :]
        self.released_length += len(text)
        return text


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` could begin `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0

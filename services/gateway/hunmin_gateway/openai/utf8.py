"""Tokens of byte-level models are bytes, not characters: how to print one, and how to count characters."""

import codecs

from hunmin_contracts.generation import TokenLogprob, TopToken


def printable(token: TokenLogprob | TopToken) -> str:
    r"""Return the token's text, or `bytes:\xec\x98` for a part of a character, as OpenAI's completions print one."""
    raw = bytes(token.bytes)
    try:
        raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
    return token.text


class CharacterCount:
    """Counts the characters of a text that comes as the bytes of its tokens."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def advance(self, token: TokenLogprob) -> int:
        """Return the offset of the character in which the token starts, and move behind the token."""
        offset = self._characters
        self._characters += len(self._decoder.decode(bytes(token.bytes)))
        return offset

    def end_text(self) -> None:
        """End a text within the count: what follows finishes no character of it."""
        self._characters += len(self._decoder.decode(b"", final=True))

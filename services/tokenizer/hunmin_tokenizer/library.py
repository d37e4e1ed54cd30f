"""The tokenizers that this service holds, by name, and the limits on what they take. It knows no HTTP."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_text.artefact import load
from hunmin_text.tokenizer import Tokenizer

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one request may bring, and from what size on its work leaves the event loop for a thread."""

    max_characters: int
    max_texts: int
    max_ids: int
    thread_from: int  # characters or ids

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise `too_large` for too many texts, or texts that are too long together."""
        if len(texts) > self.max_texts:
            raise _too_large("texts", f"{len(texts):,} texts", f"{self.max_texts:,}")
        characters = sum(map(len, texts))
        if characters > self.max_characters:
            param = "text" if len(texts) == 1 else "texts"
            raise _too_large(param, f"{characters:,} characters", f"{self.max_characters:,}")

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raise `too_large` for too many ids."""
        if len(ids) > self.max_ids:
            raise _too_large("ids", f"{len(ids):,} ids", f"{self.max_ids:,}")


class Library:
    """Tokenizers by name, all loaded before the first request."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._tokenizers = {name: load(folder, name=name) for name, folder in folders.items()}

    def all(self) -> list[Tokenizer]:
        """Return every tokenizer, in the order of their names."""
        return [self._tokenizers[name] for name in sorted(self._tokenizers)]

    def get(self, name: str) -> Tokenizer:
        """Return the tokenizer of that name; `not_found` if there is none."""
        tokenizer = self._tokenizers.get(name)
        if tokenizer is None:
            known = ", ".join(sorted(self._tokenizers))
            raise HunminError(
                ErrorCode.NOT_FOUND, f"There is no tokenizer {name!r}. There are: {known}.", param="tokenizer"
            )
        return tokenizer


async def worked(size: int, limits: Limits, work: Callable[[], ResultT]) -> ResultT:
    """Do small work at once, and large work in a thread, so that other requests are answered meanwhile."""
    return work() if size < limits.thread_from else await asyncio.to_thread(work)


def _too_large(param: str, got: str, most: str) -> HunminError:
    return HunminError(
        ErrorCode.TOO_LARGE, f"The request has {got}, at most {most} are taken. Send it in parts.", param=param
    )

"""Passwords: which may be chosen, and how they are stored (argon2id). Knows no user."""

import asyncio
import importlib.resources
import unicodedata
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from hunmin_contracts.errors import ErrorCode, HunminError

SHORTEST = 10
LONGEST = 256
_FEWEST_CHARACTERS = 4  # that differ
_AT_A_TIME = 4  # each takes 64 MiB and four threads for some 50 ms
_PARAM = "password"


def check_choice(password: str, *, email: str) -> None:
    """Raise INVALID_PARAMETER with the reason why `password` may not be chosen."""
    text = normalized(password)
    if not SHORTEST <= len(text) <= LONGEST:
        raise _unfit(f"It must have {SHORTEST} to {LONGEST} characters.")
    folded = text.casefold()
    if len(set(folded)) < _FEWEST_CHARACTERS:
        raise _unfit("It repeats the same few characters.")
    if folded in _common() or folded.rstrip("0123456789!@#.") in _common():
        raise _unfit("It is one that everybody tries first.")
    if folded in (email.casefold(), email.casefold().partition("@")[0]):
        raise _unfit("It is your address.")


def normalized(password: str) -> str:
    """Return it composed (NFC, as RFC 8265 says): one computer sends 한 as one character, another as three."""
    return unicodedata.normalize("NFC", password)


class Passwords:
    """Makes and verifies hashes, a few at a time, outside of the event loop."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turn = asyncio.Semaphore(_AT_A_TIME)
        self._nobodys = self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """Return the stored form of `password`."""
        async with self._turn:
            return await asyncio.to_thread(self._hasher.hash, normalized(password))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Tell whether `password` has that stored form; it takes as long where there is none."""
        if len(password) > LONGEST:
            password = ""
        async with self._turn:
            fits = await asyncio.to_thread(self._verify, normalized(password), stored or self._nobodys)
        return fits and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Tell that `stored` was made with weaker parameters than those of now."""
        return self._hasher.check_needs_rehash(stored)

    def _verify(self, password: str, stored: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False


@cache
def _common() -> frozenset[str]:
    file = importlib.resources.files("hunmin_kit.identity.local") / "common_passwords.txt"
    return frozenset(file.read_text(encoding="utf-8").split())


def _unfit(reason: str) -> HunminError:
    return HunminError(ErrorCode.INVALID_PARAMETER, f"Choose another password. {reason}", param=_PARAM)

"""The provider's public keys: kept for a while, so that it need not be asked for each token, and never for too long.

- A key is used for `fresh_s` after its set was read; then the set is read again, so a disabled key vanishes.
- While that fails, what is known is used until it is `max_stale_s` old; after that nothing is.
- A token whose key is unknown is judged by a set that was read after the token came, so a key that the provider has
  just made is never refused. At most one reading begins per `INTERVAL_S`, however many such tokens come: they share it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog
from hunmin_contracts.errors import ErrorCode, HunminError
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, RSAKey, import_key

INTERVAL_S = 1.0
RETRY_S = 5.0  # before a set that could not be read, and is not needed, is tried again
_MIN_RSA_BITS = 2048
_log = structlog.get_logger()


@dataclass(frozen=True)
class _Attempt:
    number: int  # of those that were begun
    begun_at: float
    error: HunminError | None


class KeyCache:
    """The keys that verify signatures, by their ids."""

    def __init__(
        self,
        read: Callable[[], Awaitable[list[Any]]],
        *,
        fresh_s: float,
        max_stale_s: float,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._read = read
        self._fresh_s = fresh_s
        self._max_stale_s = max_stale_s
        self._clock = clock
        self._pause = pause
        self._keys: dict[str, Key] = {}
        self._read_at = float("-inf")
        self._last = _Attempt(0, float("-inf"), None)
        self._reading = asyncio.Lock()

    async def key(self, key_id: str, algorithm: str) -> Key:
        """Return that key, for `algorithm`; UNAUTHENTICATED if there is none, UNAVAILABLE if that cannot be known."""
        before = self._last.number + self._reading.locked()  # one that runs may have begun too early
        await self._refresh(before)
        found = self._keys.get(key_id)
        if found is None:
            await self._read_after(before)
            found = self._keys.get(key_id)
        if found is None:
            raise HunminError(ErrorCode.UNAUTHENTICATED, "The token is refused. Its issuer has no such key.")
        if found.alg is not None and found.alg != algorithm:
            raise HunminError(ErrorCode.UNAUTHENTICATED, "The token is refused. Its key is for another algorithm.")
        return found

    async def _refresh(self, before: int) -> None:
        now = self._clock()
        age_s = now - self._read_at
        if age_s < self._fresh_s:
            return
        if age_s >= self._max_stale_s:
            self._keys = {}  # also if it cannot be read: nothing is accepted that may have been disabled for so long
            await self._read_after(before)
            return
        failed_lately = self._last.error is not None and now < self._last.begun_at + RETRY_S
        if self._reading.locked() or failed_lately:
            return
        try:
            await self._read_after(before)
        except HunminError as error:
            _log.warning("identity.keys.stale", age_s=round(age_s), error=error.message)

    async def _read_after(self, before: int) -> None:
        """Read the set, unless somebody did in an attempt later than number `before`; raise what hindered it."""
        async with self._reading:
            if self._last.number <= before:
                number = self._last.number + 1
                if (wait_s := self._last.begun_at + INTERVAL_S - self._clock()) > 0:
                    await self._pause(wait_s)
                begun_at = self._clock()
                try:
                    self._keys = _verifying(await self._read())
                except HunminError as error:
                    self._last = _Attempt(number, begun_at, error)
                else:
                    self._last, self._read_at = _Attempt(number, begun_at, None), begun_at
            failed = self._last.error
            if failed is not None:
                raise HunminError(failed.code, failed.message, **failed.details) from failed


def _verifying(keys: list[Any]) -> dict[str, Key]:
    """Return the public keys for signatures; symmetric keys, weak ones and those of unknown kinds are left out."""
    found: dict[str, Key] = {}
    for raw in keys:
        if not isinstance(raw, dict) or raw.get("kty") not in ("RSA", "EC") or not isinstance(raw.get("kid"), str):
            continue
        if raw.get("use", "sig") != "sig":
            continue
        try:
            key = import_key(raw)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, ECKey) or (isinstance(key, RSAKey) and key.public_key.key_size >= _MIN_RSA_BITS):
            found[raw["kid"]] = key
    return found

"""From the cookie of a request to its session: found, proved to be meant by its page, its claims renewed in time."""

import asyncio
import hmac
import time

from fastapi import Request
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_kit.identity import IdentityProvider

from hunmin_gateway.login import cookies
from hunmin_gateway.login.sessions import RENEWAL_LEASE, Session, Sessions
from hunmin_gateway.quotas.headers import tell

CSRF_HEADER = "x-hunmin-csrf"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOK_EVERY_S = 0.1


class Browsers:
    """Knows the sessions of browsers. `finish` before the service stops."""

    def __init__(self, provider: IdentityProvider, sessions: Sessions) -> None:
        self._provider = provider
        self._sessions = sessions
        self._renewals: set[asyncio.Task[Session]] = set()

    async def session_of(self, request: Request) -> Session:
        """Return the request's session; UNAUTHENTICATED if it has none, FORBIDDEN if another site may have sent it."""
        secret = request.cookies.get(cookies.SESSION)
        if not secret:
            raise _no_session()
        session = await self._sessions.find(secret)
        if session is None:
            raise _no_session()
        if request.method not in _SAFE:
            told = request.headers.get(CSRF_HEADER, "")
            if not hmac.compare_digest(told.encode(), session.csrf.encode()):
                raise HunminError(
                    ErrorCode.FORBIDDEN,
                    "The request carries a session's cookie without its proof. Send the header X-Hunmin-CSRF with the "
                    "value that GET /auth/session tells.",
                )
        if session.is_due:
            # A client that leaves must not lose what the provider answers: it may give a token only once.
            renewal = asyncio.create_task(self._renewed(secret, session))
            self._renewals.add(renewal)
            renewal.add_done_callback(self._renewals.discard)
            session = await asyncio.shield(renewal)
        return session

    async def finish(self) -> None:
        """Wait for what the provider is being asked."""
        await asyncio.gather(*self._renewals, return_exceptions=True)

    async def _renewed(self, secret: str, session: Session) -> Session:
        give_up_at = time.monotonic() + RENEWAL_LEASE.total_seconds()
        while not await self._sessions.claim_renewal(session):
            if not session.is_stale:
                return session  # another request renews it, and what is known is still valid
            if time.monotonic() > give_up_at:
                raise HunminError(ErrorCode.UNAVAILABLE, "The identity provider takes too long. Try again shortly.")
            await asyncio.sleep(_LOOK_EVERY_S)
            session = await self._found(secret)
            if not session.is_due:
                return session
        return await self._renew(secret, session)

    async def _renew(self, secret: str, session: Session) -> Session:
        try:
            login = await self._provider.renew(session.login)
        except HunminError as error:
            if error.code is ErrorCode.UNAUTHENTICATED:
                await self._sessions.end(session)
                raise
            await self._sessions.release_renewal(session)
            if session.is_stale:
                raise
            return session
        replaced = await self._sessions.renew(session, login)
        if replaced is not None:
            max_age_s = round(self._sessions.lifetime.total_seconds())
            tell({"set-cookie": cookies.session_header(replaced, max_age_s=max_age_s)})
        return await self._found(replaced or secret)

    async def _found(self, secret: str) -> Session:
        session = await self._sessions.find(secret)
        if session is None:
            raise _no_session()
        return session


def _no_session() -> HunminError:
    return HunminError(ErrorCode.UNAUTHENTICATED, "You are not logged in, or no longer. Go to /auth/login.")

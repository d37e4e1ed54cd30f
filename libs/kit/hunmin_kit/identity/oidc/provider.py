"""The adapter to an OpenID Connect provider: code flow with PKCE, access tokens of machines, both kinds of logout."""

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

import httpx
from hunmin_contracts.errors import ErrorCode, HunminError

from hunmin_kit.identity.identity import Identity
from hunmin_kit.identity.oidc.claims import identity_of
from hunmin_kit.identity.oidc.endpoint import Endpoint
from hunmin_kit.identity.oidc.keys import KeyCache
from hunmin_kit.identity.oidc.secret import TokenPair
from hunmin_kit.identity.oidc.settings import OidcSettings
from hunmin_kit.identity.oidc.tokens import SignedToken, TokenReader, refuse
from hunmin_kit.identity.provider import EndedSessions, Login, LoginStart
from hunmin_kit.web.network import authorities

# All organisations: with `organization` alone Keycloak asks members of several to choose one.
SCOPE = "openid profile email organization:*"
TIMEOUT_S = 5.0
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_MAX_CONNECTIONS = 20
_LOGOUT_LIFE_S = 300  # of a logout token, whatever it says of itself


class OidcProvider:
    """An IdentityProvider."""

    def __init__(
        self,
        settings: OidcSettings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        network = transport or httpx.AsyncHTTPTransport(
            verify=authorities(), trust_env=False, retries=1, limits=httpx.Limits(max_connections=_MAX_CONNECTIONS)
        )
        self._settings = settings
        self._clock = clock
        self._endpoint = Endpoint(settings, network, timeout_s=TIMEOUT_S)
        keys = KeyCache(self._endpoint.key_set, fresh_s=settings.keys_fresh_s, max_stale_s=settings.keys_max_stale_s)
        self._reader = TokenReader(keys, issuer=settings.issuer, clock=clock)

    @property
    def issuer(self) -> str:
        """The issuer of its identities."""
        return self._settings.issuer

    async def begin_login(self, *, callback: str) -> LoginStart:
        """Return the provider's page of login, for a browser that comes back to `callback`."""
        metadata = await self._endpoint.metadata()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": callback,
            "scope": SCOPE,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        url = f"{metadata.authorization_endpoint}?{urlencode(query)}"
        return LoginStart(url=url, state=state, secrets={"nonce": nonce, "verifier": verifier})

    async def finish_login(self, start: LoginStart, answer: Mapping[str, str], *, callback: str) -> Login:
        """Exchange the code that the browser brought for tokens, and check both."""
        if not hmac.compare_digest(answer.get("state", "").encode(), start.state.encode()):
            raise _nobody("It does not belong to the login that this browser began.")
        metadata = await self._endpoint.metadata()
        sender = answer.get("iss")  # RFC 9207: an answer of another provider is not taken to this one
        if sender != metadata.issuer and (
            sender is not None or metadata.authorization_response_iss_parameter_supported
        ):
            raise _nobody("It does not come from the identity provider of this studio.")
        if "error" in answer:
            raise _nobody(f"The identity provider says: {answer['error'][:100]}.")
        if not answer.get("code"):
            raise _nobody("It has no code.")
        form = {
            "grant_type": "authorization_code",
            "code": answer["code"],
            "redirect_uri": callback,
            "code_verifier": start.secrets["verifier"],
        }
        tokens = TokenPair.of(await self._endpoint.token(form))
        identified = await self._read_id_token(tokens.id_token)
        if not hmac.compare_digest(identified.text("nonce").encode(), start.secrets["nonce"].encode()):
            refuse("Its nonce is not that of this login.")
        return await self._login(tokens, identified.subject)

    async def renew(self, login: Login) -> Login:
        """Get tokens anew by the refresh token."""
        held = TokenPair.loads(login.secret)
        form = {"grant_type": "refresh_token", "refresh_token": held.refresh_token}
        tokens = TokenPair.of(await self._endpoint.token(form), before=held)
        return await self._login(tokens, login.identity.subject)

    async def verify_bearer(self, token: str) -> Identity:
        """Check an access token, of a machine or a person."""
        return identity_of(await self._read_access_token(token), self._settings)

    async def logout_url(self, login: Login, *, back_to: str) -> str | None:
        """Return the provider's page of logout, which names the session by its ID token."""
        metadata = await self._endpoint.metadata()
        if metadata.end_session_endpoint is None:
            return None
        query = {
            "client_id": self._settings.client_id,
            "post_logout_redirect_uri": back_to,
            "id_token_hint": TokenPair.loads(login.secret).id_token,
        }
        return f"{metadata.end_session_endpoint}?{urlencode(query)}"

    async def verify_logout(self, token: str) -> EndedSessions:
        """Check a logout token (OpenID Connect Back-Channel Logout 1.0, section 2.6)."""
        try:
            found = await self._reader.read(token, audience=self._settings.client_id)
            told_at = found.moment("iat")
        except HunminError as error:
            if error.code is not ErrorCode.UNAUTHENTICATED:
                raise
            raise HunminError(ErrorCode.INVALID_REQUEST, error.message) from None
        session_id, subject = found.optional_text("sid"), found.optional_text("sub")
        events = found.claims.get("events")
        is_logout = isinstance(events, dict) and isinstance(events.get(LOGOUT_EVENT), dict)
        if not is_logout or "nonce" in found.claims or (session_id is None and subject is None):
            raise HunminError(ErrorCode.INVALID_REQUEST, "The token is refused. It is no logout token.")
        if told_at.timestamp() + _LOGOUT_LIFE_S < self._clock():
            raise HunminError(ErrorCode.INVALID_REQUEST, "The token is refused. It is too old.")
        return EndedSessions(issuer=self.issuer, session_id=session_id, subject=subject, told_at=told_at)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._endpoint.aclose()

    async def _login(self, tokens: TokenPair, subject: str) -> Login:
        access = await self._read_access_token(tokens.access_token)
        if access.subject != subject or access.text("azp") != self._settings.client_id:
            refuse("The identity provider gave tokens that do not belong together.")
        return Login(identity=identity_of(access, self._settings), secret=tokens.dumps())

    async def _read_id_token(self, token: str) -> SignedToken:
        found = await self._reader.read(token, audience=self._settings.client_id)
        if found.claims.get("typ", "ID") != "ID":  # Keycloak tells the kind of a token in this claim
            refuse("It is no ID token.")
        if found.claims.get("azp", self._settings.client_id) != self._settings.client_id:
            refuse("It was issued to another client.")
        return found

    async def _read_access_token(self, token: str) -> SignedToken:
        found = await self._reader.read(token, audience=self._settings.audience)
        # RFC 9068 names the kind in the header, Keycloak in a claim. One that names none may be an ID token.
        media_type = str(found.header.get("typ", "")).lower().removeprefix("application/")
        if media_type != "at+jwt" and found.claims.get("typ") != "Bearer":
            refuse("It is no access token.")
        if "cnf" in found.claims:
            refuse("It is bound to a key of its holder, which is not proved here.")
        party = found.text("azp") if "azp" in found.claims else found.text("client_id")
        if self._settings.authorized_parties and party not in self._settings.authorized_parties | {
            self._settings.client_id
        }:
            refuse("It was issued to a client that may not use this studio.")
        return found


def _nobody(reason: str) -> HunminError:
    return HunminError(ErrorCode.UNAUTHENTICATED, f"The answer to the login is refused. {reason} Log in again.")

"""Requests to the provider, and its description of itself (OpenID Connect Discovery 1.0)."""

from typing import Any

import httpx
import structlog
from hunmin_contracts.errors import ErrorCode, HunminError
from pydantic import BaseModel, ValidationError

from hunmin_kit.identity.oidc.settings import OidcSettings

_RETRY_AFTER_S = 5
_log = structlog.get_logger()


class Metadata(BaseModel):
    """The parts of the description that are used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    end_session_endpoint: str | None = None
    code_challenge_methods_supported: list[str] = []
    authorization_response_iss_parameter_supported: bool = False


class Endpoint:
    """The provider's own pages for programs."""

    def __init__(self, settings: OidcSettings, transport: httpx.AsyncBaseTransport, *, timeout_s: float) -> None:
        self._settings = settings
        self._http = httpx.AsyncClient(transport=transport, timeout=timeout_s, follow_redirects=False)
        self._metadata: Metadata | None = None

    async def metadata(self) -> Metadata:
        """Return the provider's description; read once, since an issuer's endpoints stay."""
        if self._metadata is None:
            self._metadata = await self._read_metadata()
        return self._metadata

    async def key_set(self) -> list[Any]:
        """Return the keys of the provider's set, as they are."""
        content = await self._json("GET", (await self.metadata()).jwks_uri)
        keys = content.get("keys")
        if not isinstance(keys, list):
            raise unavailable("Its key set has no keys.")
        return keys

    async def token(self, form: dict[str, str]) -> dict[str, Any]:
        """Post `form` to the token endpoint; UNAUTHENTICATED if what it presents is not valid there."""
        settings = self._settings
        form = form | {"client_id": settings.client_id, "client_secret": settings.client_secret}
        return await self._json("POST", (await self.metadata()).token_endpoint, form=form)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _read_metadata(self) -> Metadata:
        settings = self._settings
        url = settings.discovery_url or f"{settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        try:
            found = Metadata.model_validate(await self._json("GET", url))
        except ValidationError as error:
            raise unavailable("Its description of itself lacks a part.") from error
        if found.issuer != settings.issuer:
            raise unavailable(f"It calls itself {found.issuer!r}, not {settings.issuer!r} as the settings say.")
        if "S256" not in found.code_challenge_methods_supported:
            raise unavailable("It does not offer PKCE with S256.")
        return found

    async def _json(self, method: str, url: str, *, form: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            response = await self._http.request(method, url, data=form, headers={"Accept": "application/json"})
            content = response.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            _log.warning("identity.provider.unreachable", url=url, error=type(error).__name__)
            raise unavailable("It does not answer.") from error
        if not isinstance(content, dict):
            raise unavailable("It gave an answer of another shape.")
        if form is not None and response.status_code == httpx.codes.BAD_REQUEST and content.get("error") in _REFUSED:
            raise HunminError(ErrorCode.UNAUTHENTICATED, "The login has expired or was ended. Log in again.")
        if response.status_code != httpx.codes.OK:
            _log.error("identity.provider.refused", url=url, status=response.status_code, error=content.get("error"))
            raise unavailable(f"It refused the studio with status {response.status_code}; see the gateway's log.")
        return content


_REFUSED = ("invalid_grant",)


def unavailable(reason: str) -> HunminError:
    """Return the error of a provider that cannot be asked."""
    return HunminError(
        ErrorCode.UNAVAILABLE,
        f"The identity provider cannot be asked. {reason} Try again shortly.",
        retry_after_s=_RETRY_AFTER_S,
    )

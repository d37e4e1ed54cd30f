"""The settings of login: HUNMIN_GATEWAY_OIDC_… name a provider; without them the studio has users of its own."""

from typing import Annotated

from hunmin_kit.identity.oidc import OidcSettings
from hunmin_kit.run import Settings
from hunmin_kit.run.errors import StartError
from pydantic import Field, HttpUrl, SecretStr, field_validator

_Text = Annotated[str, Field(min_length=1)]


class LoginSettings(Settings):
    """A part of the gateway's settings."""

    # Where browsers reach the studio, behind whatever stands before it. None: as each request says.
    public_url: HttpUrl | None = None
    # The provider's issuer to the letter, e.g. https://login.example.org/realms/hunmin. None: built-in users.
    oidc_issuer: _Text | None = None
    oidc_client_id: _Text = "hunmin"
    oidc_client_secret: SecretStr | None = None
    # What the access tokens' `aud` must hold; other than the client's id, so that no ID token passes for one.
    oidc_audience: _Text = "hunmin-api"
    # Where the provider describes itself, if the gateway reaches it by another address than browsers do.
    oidc_discovery_url: HttpUrl | None = None
    # The clients whose access tokens are taken, as a JSON list; empty: all that the provider gives the audience.
    oidc_authorized_parties: list[_Text] = []
    # Whether roles of the realm count too. They may mean something else in a realm that others use.
    oidc_realm_roles: bool = False
    # How long a key is used before the key set is read again: so long a key that was disabled is accepted.
    oidc_keys_fresh_s: float = Field(default=60, ge=1)
    # How long keys are used while the key set cannot be read.
    oidc_keys_max_stale_s: float = Field(default=600, ge=1)
    # A session ends when it was not used for so long, and after so long whatever it did.
    session_idle_s: float = Field(default=8 * 3600, ge=60)
    session_lifetime_s: float = Field(default=7 * 86400, ge=60)

    @field_validator("oidc_issuer")
    @classmethod
    def _is_issuer(cls, issuer: str | None) -> str | None:
        if issuer is not None and not issuer.startswith(("https://", "http://")):
            raise ValueError("it is written as https://host/realms/NAME")
        return issuer


def oidc_settings(settings: LoginSettings) -> OidcSettings | None:
    """Return what to tell the adapter to a provider; None if there is none, a StartError if a part is missing."""
    if settings.oidc_issuer is None:
        return None
    if settings.oidc_client_secret is None:
        raise StartError(
            "HUNMIN_GATEWAY_OIDC_ISSUER is set, but HUNMIN_GATEWAY_OIDC_CLIENT_SECRET is not. Set it to the client's "
            "secret; `hunmin identity init` prints it."
        )
    if settings.oidc_audience == settings.oidc_client_id:
        raise StartError(
            "HUNMIN_GATEWAY_OIDC_AUDIENCE is the client's id: an ID token would look like an access token. Choose two."
        )
    discovery_url = settings.oidc_discovery_url
    return OidcSettings(
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=settings.oidc_client_secret.get_secret_value(),
        audience=settings.oidc_audience,
        discovery_url=None if discovery_url is None else str(discovery_url),
        authorized_parties=frozenset(settings.oidc_authorized_parties),
        realm_roles=settings.oidc_realm_roles,
        keys_fresh_s=settings.oidc_keys_fresh_s,
        keys_max_stale_s=max(settings.oidc_keys_max_stale_s, settings.oidc_keys_fresh_s),
    )

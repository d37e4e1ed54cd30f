"""OpenID Connect: the studio as a confidential client of a provider such as Keycloak, and as a resource server."""

from hunmin_kit.identity.oidc.provider import OidcProvider
from hunmin_kit.identity.oidc.settings import OidcSettings

__all__ = ["OidcProvider", "OidcSettings"]

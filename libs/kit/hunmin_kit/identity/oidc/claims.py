"""From the claims of a checked access token to an Identity, in the shapes that Keycloak gives them."""

from typing import Any

from hunmin_kit.identity.identity import Identity
from hunmin_kit.identity.oidc.settings import OidcSettings
from hunmin_kit.identity.oidc.tokens import SignedToken


def identity_of(token: SignedToken, settings: OidcSettings) -> Identity:
    """Return who `token` is about. An address that its owner has not proved is left out: it may be anybody's."""
    claims = token.claims
    return Identity(
        issuer=settings.issuer,
        subject=token.subject,
        email=token.optional_text("email") if claims.get("email_verified") is True else None,
        name=token.optional_text("name") or token.optional_text("preferred_username"),
        organizations=_organizations(claims.get("organization")),
        roles=_roles(claims, settings),
        session_id=token.optional_text("sid"),
        expires_at=token.moment("exp"),
    )


def _organizations(claim: Any) -> frozenset[str]:
    """Return the aliases: Keycloak writes one as a text, several as a list, and with attributes as an object."""
    if isinstance(claim, str):
        return frozenset([claim])
    return frozenset(filter(None, _texts(list(claim) if isinstance(claim, dict) else claim)))


def _roles(claims: dict[str, Any], settings: OidcSettings) -> frozenset[str]:
    clients = claims.get("resource_access")
    roles = _texts(_part(_part(clients, settings.client_id), "roles"))
    if settings.realm_roles:
        roles += _texts(_part(claims.get("realm_access"), "roles"))
    return frozenset(roles)


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []

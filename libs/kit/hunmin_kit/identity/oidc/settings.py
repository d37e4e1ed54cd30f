"""What the studio must be told of its provider."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OidcSettings:
    """`issuer` is compared to the letter. Access tokens are for `audience`, ID tokens for `client_id`.

    `authorized_parties` are the clients whose access tokens are taken; empty: any that the provider gives the audience.
    Roles are those of the client, with `realm_roles` also the realm's. A key is used for `keys_fresh_s` before the key
    set is read again, and for `keys_max_stale_s` while that fails.
    """

    issuer: str
    client_id: str
    client_secret: str
    audience: str
    discovery_url: str | None = None
    authorized_parties: frozenset[str] = frozenset()
    realm_roles: bool = False
    keys_fresh_s: float = 60
    keys_max_stale_s: float = 600

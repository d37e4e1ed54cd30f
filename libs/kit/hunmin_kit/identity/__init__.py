"""Who somebody is: what an identity provider tells, once it is checked. Knows no account, no right and no quota."""

from hunmin_kit.identity.identity import Identity
from hunmin_kit.identity.provider import EndedSessions, IdentityProvider, Login, LoginStart

__all__ = ["EndedSessions", "Identity", "IdentityProvider", "Login", "LoginStart"]

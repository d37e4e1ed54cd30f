"""The built-in provider: users of the studio's own, for installations without another."""

from hunmin_kit.identity.local.provider import ISSUER, LocalProvider
from hunmin_kit.identity.local.users import Invitation, LocalUser, LocalUsers

__all__ = ["ISSUER", "Invitation", "LocalProvider", "LocalUser", "LocalUsers"]

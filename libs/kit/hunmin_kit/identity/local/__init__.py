"""The built-in provider: users of the studio's own, for installations without another."""

from hunmin_kit.identity.local.provider import ISSUER, LocalChange, LocalProvider
from hunmin_kit.identity.local.users import Invitation, LocalUser, LocalUsers, normal_address

__all__ = ["ISSUER", "Invitation", "LocalChange", "LocalProvider", "LocalUser", "LocalUsers", "normal_address"]

"""Who may do what: roles of members, scopes of keys, and what the Studio API tells of them."""

from collections.abc import Mapping, Set
from enum import StrEnum


class Scope(StrEnum):
    """One right. Every route of the gateway names the one that it needs."""

    READ = "read"  # lists and descriptions, tokenizers
    GENERATE = "generate"  # completions, scores, embeddings
    GRADIENTS = "gradients"
    TUNE = "tune"  # tuning jobs
    DATA = "data"  # datasets, files, soft prompts
    MANAGE = "manage"  # projects, members, keys, audit
    ACCOUNT = "account"  # the account itself, its owners and admins


class Role(StrEnum):
    """What a member is in a project, or in a whole account. Each has the rights of those below it."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"


_VIEWER = frozenset({Scope.READ})
_DEVELOPER = _VIEWER | {Scope.GENERATE, Scope.GRADIENTS, Scope.TUNE, Scope.DATA}
_ADMIN = _DEVELOPER | {Scope.MANAGE}
SCOPES: Mapping[Role, frozenset[Scope]] = {
    Role.OWNER: _ADMIN | {Scope.ACCOUNT},
    Role.ADMIN: _ADMIN,
    Role.DEVELOPER: _DEVELOPER,
    Role.VIEWER: _VIEWER,
}


def least_role(scopes: Set[Scope]) -> Role:
    """Return the lowest role that has all of `scopes`."""
    return min((role for role in Role if scopes <= SCOPES[role]), key=lambda role: len(SCOPES[role]))


class KeyKind(StrEnum):
    """What a key is for. A console's is a person's own in a project: it stands in the ledger, and nobody can send it.

    An operator's is made on the command line alone.
    """

    TEST = "test"
    SERVICE = "service"
    CONSOLE = "console"
    OPERATOR = "operator"

"""Who may do what: roles of members, scopes of keys, and what the Studio API tells of them."""

from collections.abc import Mapping, Set
from datetime import datetime
from enum import StrEnum

from hunmin_contracts.ids import AccountId, ApiKeyId, MemberId, ProjectId, UserId
from hunmin_contracts.page import Page
from hunmin_contracts.schema import Schema


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


class AccountInfo(Schema):
    """An account. One that is suspended is refused everything.

    The people of that `organization` of the identity provider belong to it; null: those of none do.
    """

    id: AccountId
    name: str
    organization: str | None
    created_at: datetime
    suspended_at: datetime | None


class ProjectInfo(Schema):
    """A project of an account. The default one is there from the beginning. Keys of an archived one are refused."""

    id: ProjectId
    account_id: AccountId
    name: str
    is_default: bool
    created_at: datetime
    archived_at: datetime | None


class MemberInfo(Schema):
    """What somebody is in a project, or where `project_id` is null in the whole account.

    One without `user_id` was invited by `email`, and becomes a member when they first come.
    """

    id: MemberId
    project_id: ProjectId | None
    user_id: UserId | None
    email: str | None
    name: str | None
    role: Role
    created_at: datetime


class ApiKeyInfo(Schema):
    """What may be shown of a key. An account-wide one sees every project of the account, any other its own alone.

    `created_by` is a user or a key; null is the command line. One that was rotated names the key that replaces it.
    """

    id: ApiKeyId
    project_id: ProjectId
    name: str
    kind: KeyKind
    scopes: list[Scope]
    is_account_wide: bool
    prefix: str
    created_by: str | None
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    replaced_by: ApiKeyId | None


class NewApiKey(Schema):
    """A key that was just made. `key` is shown this once."""

    key: str
    info: ApiKeyInfo


class UserInfo(Schema):
    """Somebody whom an identity provider knows. `subject` is their id there."""

    id: UserId
    issuer: str
    subject: str
    email: str | None
    name: str | None
    created_at: datetime
    last_seen_at: datetime | None
    disabled_at: datetime | None


class Me(Schema):
    """Who a request acts for, and what it may do."""

    account: AccountInfo
    project: ProjectInfo
    key_id: ApiKeyId
    user_id: UserId | None
    role: Role
    kind: KeyKind
    scopes: list[Scope]
    is_account_wide: bool
    is_operator: bool


class AccountPage(Page[AccountInfo]):
    """Accounts, newest first."""


class ProjectPage(Page[ProjectInfo]):
    """Projects, newest first."""


class MemberPage(Page[MemberInfo]):
    """Members, newest first."""


class ApiKeyPage(Page[ApiKeyInfo]):
    """Keys, newest first."""


class UserPage(Page[UserInfo]):
    """Users, newest first."""

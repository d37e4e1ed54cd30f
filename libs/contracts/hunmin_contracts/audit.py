"""The audit: every change to accounts, projects, members, keys, limits and users, and who made it."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from hunmin_contracts.ids import AccountId, AuditEntryId, ProjectId, RequestId
from hunmin_contracts.page import Page
from hunmin_contracts.schema import Schema


class ActorKind(StrEnum):
    """Who makes changes: a key, a person, either of them as an operator, or somebody at the command line."""

    KEY = "key"
    USER = "user"
    OPERATOR = "operator"
    CLI = "cli"


class Action(StrEnum):
    """What was done."""

    ACCOUNT_CREATED = "account.created"
    ACCOUNT_RENAMED = "account.renamed"
    ACCOUNT_ORGANIZATION_CHANGED = "account.organization_changed"
    ACCOUNT_SUSPENDED = "account.suspended"
    ACCOUNT_RESUMED = "account.resumed"
    PROJECT_CREATED = "project.created"
    PROJECT_RENAMED = "project.renamed"
    PROJECT_ARCHIVED = "project.archived"
    PROJECT_RESTORED = "project.restored"
    MEMBER_ADDED = "member.added"
    MEMBER_JOINED = "member.joined"
    MEMBER_CHANGED = "member.changed"
    MEMBER_REMOVED = "member.removed"
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    KEY_ROTATED = "key.rotated"
    LIMIT_SET = "limit.set"
    LIMIT_REMOVED = "limit.removed"
    USER_INVITED = "user.invited"
    USER_REGISTERED = "user.registered"
    USER_RESET_OFFERED = "user.reset_offered"
    USER_PASSWORD_CHANGED = "user.password_changed"  # noqa: S105  # what was done
    USER_CHANGED = "user.changed"
    USER_DISABLED = "user.disabled"
    USER_ENABLED = "user.enabled"


class AuditEntry(Schema):
    """One change. `before` and `after` are what the subject was, without secrets; null where it was not there.

    `actor_id` is a key's or a user's, or who was logged in at the command line.
    """

    id: AuditEntryId
    at: datetime
    account_id: AccountId | None
    project_id: ProjectId | None
    actor_kind: ActorKind
    actor_id: str | None
    action: str
    subject_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: RequestId | None


class AuditPage(Page[AuditEntry]):
    """Changes, newest first."""

"""The tables of schema `gateway`.

Rows are handled in tenancy/, keys/, login/sessions.py, audit/, usage/, quotas/, files/, batches/, idempotency/ alone.
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_NAMES = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}


class Table(DeclarativeBase):
    """The base of the tables."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: String,
        datetime: DateTime(timezone=True),
        bytes: LargeBinary,
        list[str]: ARRAY(String),
        dict[str, Any]: JSONB(none_as_null=True),
    }


class Account(Table):
    """Who owns projects, keys and usage."""

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    organization: Mapped[str | None] = mapped_column(unique=True)  # whose people belong to it; its owners name it not
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    suspended_at: Mapped[datetime | None]


class Project(Table):
    """A part of an account: keys, members and usage are in one. Each account has a default one from the beginning."""

    __tablename__ = "projects"
    __table_args__ = (
        UniqueConstraint("account_id", "name"),
        Index("uq_projects_default", "account_id", unique=True, postgresql_where=text("is_default")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str]
    is_default: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    archived_at: Mapped[datetime | None]


class User(Table):
    """Somebody whom an identity provider knows."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    issuer: Mapped[str]
    subject: Mapped[str]
    email: Mapped[str | None]
    name: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]


class Member(Table):
    """What a user is in a project, or in the whole account. One who never came is known by the email alone."""

    __tablename__ = "members"
    __table_args__ = (
        CheckConstraint("role in ('owner', 'admin', 'developer', 'viewer')", name="role"),
        CheckConstraint("(user_id IS NULL) <> (email IS NULL)", name="who"),
        Index("uq_members_user", "account_id", text("coalesce(project_id, '')"), "user_id", unique=True),
        Index("uq_members_email", "account_id", text("coalesce(project_id, '')"), "email", unique=True),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id"))
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id"), index=True)
    email: Mapped[str | None] = mapped_column(index=True)  # in lower case
    role: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ApiKey(Table):
    """A key by its HMAC; the key itself is nowhere. A console's has 32 random bytes there, the HMAC of no key."""

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("kind in ('test', 'service', 'console', 'operator')", name="kind"),
        Index(
            "uq_api_keys_console", "project_id", "created_by", unique=True, postgresql_where=text("kind = 'console'")
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    kind: Mapped[str]
    scopes: Mapped[list[str]]
    is_account_wide: Mapped[bool]
    prefix: Mapped[str]
    digest: Mapped[bytes] = mapped_column(unique=True)
    created_by: Mapped[str | None]  # a user; None: the command line, or another key
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    replaced_by: Mapped[str | None]  # the key that it was rotated to


class AuditEntry(Table):
    """A change that somebody made. Append-only: the database refuses to change or delete one."""

    __tablename__ = "audit_entries"
    __table_args__ = (
        CheckConstraint("actor_kind in ('key', 'user', 'operator', 'cli')", name="actor_kind"),
        Index(None, "account_id", "at", "id"),
        Index(None, "at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    account_id: Mapped[str | None]
    project_id: Mapped[str | None]
    actor_kind: Mapped[str]
    actor_id: Mapped[str | None]
    action: Mapped[str]
    subject_id: Mapped[str]
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any] | None]
    request_id: Mapped[str | None]


class Usage(Table):
    """What one request used. Append-only: the database refuses to change or delete one.

    A client may choose the same request id twice, so it is no key.
    """

    __tablename__ = "usage"
    __table_args__ = (
        Index(None, "account_id", "started_at", "id"),
        Index("ix_usage_project_id_started_at_id", "project_id", "started_at", "id"),
        CheckConstraint("status in ('succeeded', 'failed', 'cancelled')", name="status"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(index=True)
    account_id: Mapped[str]
    project_id: Mapped[str | None]  # None: the key was gone when a lost exchange was settled
    key_id: Mapped[str]
    model: Mapped[str]
    endpoint: Mapped[str]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    backward_tokens: Mapped[int] = mapped_column(server_default="0")
    status: Mapped[str]
    error_code: Mapped[str | None]
    started_at: Mapped[datetime]
    duration_s: Mapped[float]  # from the acceptance of the request to the end of its answer
    corrects: Mapped[str | None] = mapped_column(unique=True)  # the row that this one adds to
    batch_id: Mapped[str | None]  # whose line it was: of quotas it took half its tokens
    trace_id: Mapped[str | None]  # of which the request was part

    @property
    def is_correction(self) -> bool:
        """Whether it is no request of its own."""
        return self.corrects is not None


class QuotaLimit(Table):
    """A limit of an account. `model` and `purpose` are `*` where it counts all of them together."""

    __tablename__ = "quota_limits"
    __table_args__ = (UniqueConstraint("account_id", "model", "purpose", "name", name="uq_quota_limits_account_id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    model: Mapped[str]
    purpose: Mapped[str]
    name: Mapped[str]
    value: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class QuotaCounter(Table):
    """What is taken of a limit in the minute or month that begins then; from the epoch on, what runs at a time.

    It refers to no limit by a foreign key: each request would lock its limits for one, and what outlives a limit is
    tidied away.
    """

    __tablename__ = "quota_counters"
    __table_args__ = (CheckConstraint("used >= 0 and reserved >= 0", name="taken"),)

    limit_id: Mapped[str] = mapped_column(primary_key=True)
    begins_at: Mapped[datetime] = mapped_column(primary_key=True)
    ends_at: Mapped[datetime | None] = mapped_column(index=True)
    used: Mapped[int] = mapped_column(BigInteger)
    reserved: Mapped[int] = mapped_column(BigInteger)


class QuotaReservation(Table):
    """What a running request has reserved of one limit, until its lease runs out; of one that was cut, the rest.

    One that was swept has given its amount back; it is kept for a late settlement.
    """

    __tablename__ = "quota_reservations"
    __table_args__ = (
        Index("ix_quota_reservations_due", "expires_at", postgresql_where=text("swept_at IS NULL")),
        Index("ix_quota_reservations_swept_at", "swept_at", postgresql_where=text("swept_at IS NOT NULL")),
    )

    usage_id: Mapped[str] = mapped_column(primary_key=True)
    limit_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    begins_at: Mapped[datetime]
    amount: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime]
    swept_at: Mapped[datetime | None]


class MeteredCall(Table):
    """What generation told of a call whose exchange has no row of usage yet. Rows are handled by usage/lost.py."""

    __tablename__ = "metered_calls"

    event_id: Mapped[str] = mapped_column(primary_key=True)
    usage_id: Mapped[str] = mapped_column(index=True)
    request_id: Mapped[str]
    account_id: Mapped[str]
    key_id: Mapped[str]
    model: Mapped[str]
    endpoint: Mapped[str]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    backward_tokens: Mapped[int]
    outcome: Mapped[str]
    error_code: Mapped[str | None]
    started_at: Mapped[datetime]  # of the exchange
    batch_id: Mapped[str | None]
    trace_id: Mapped[str | None]
    calls: Mapped[int | None]  # that the exchange makes
    ended_at: Mapped[datetime]  # of the call
    noted_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class StoredFile(Table):
    """A file of an account that the gateway keeps itself, in the blob store: what batches read and write."""

    __tablename__ = "files"
    __table_args__ = (Index("ix_files_account_id_created_at", "account_id", "created_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str]
    project_id: Mapped[str]
    purpose: Mapped[str]
    filename: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Batch(Table):
    """Requests of a file that are made without anyone who waits. What its columns mean is said in batches/.

    `due_at`: when there is something to do with it, and `claim` who does, until then.
    """

    __tablename__ = "batches"
    __table_args__ = (
        Index("ix_batches_account_id_created_at", "account_id", "created_at", "id"),
        Index("ix_batches_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str]
    project_id: Mapped[str]
    key_id: Mapped[str]
    key_kind: Mapped[str]
    endpoint: Mapped[str]
    input_file_id: Mapped[str]
    dataset_id: Mapped[str | None]  # whose rows the file was made of
    attributes: Mapped[dict[str, str]] = mapped_column(JSON)  # its `metadata`, a name that tables have for themselves
    status: Mapped[str]
    ends_as: Mapped[str | None]  # what it is once its files are written
    total: Mapped[int] = mapped_column(server_default="0")
    completed: Mapped[int] = mapped_column(server_default="0")
    failed: Mapped[int] = mapped_column(server_default="0")
    errors: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    output_file_id: Mapped[str | None]
    error_file_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]
    in_progress_at: Mapped[datetime | None]
    finalizing_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]
    expired_at: Mapped[datetime | None]
    cancelling_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]
    claim: Mapped[str | None]
    due_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default="0")  # of what is to be done with it now


class BatchLine(Table):
    """A request of a batch, until the batch ends. It is over when it has no `due_at`."""

    __tablename__ = "batch_lines"
    __table_args__ = (
        Index("ix_batch_lines_due", "batch_id", "number", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index("ix_batch_lines_claim", "batch_id", "claim", postgresql_where=text("claim IS NOT NULL")),
    )

    batch_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)  # of its line in the file, from 1
    custom_id: Mapped[str]
    body: Mapped[str]
    claim: Mapped[str | None]
    due_at: Mapped[datetime | None] = mapped_column(server_default=func.clock_timestamp())
    attempts: Mapped[int] = mapped_column(server_default="0")
    request_id: Mapped[str | None]
    status_code: Mapped[int | None]
    response: Mapped[str | None]


class IdempotencyKey(Table):
    """A key that a request came with, and its answer once that is there; before that, who has it until when.

    `status` 0: the answer was too large to be kept.
    """

    __tablename__ = "idempotency_keys"

    account_id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    claim: Mapped[str] = mapped_column(unique=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    status: Mapped[int | None]
    headers: Mapped[list[list[str]] | None] = mapped_column(JSON(none_as_null=True))
    body: Mapped[bytes | None]


class LoginSession(Table):
    """A session of a browser by the digest of its secret, with the claims that the provider told last.

    `secret` is the provider's, sealed; `begun_at` stays when the id is replaced.
    """

    __tablename__ = "sessions"
    __table_args__ = (Index(None, "issuer", "subject"), Index(None, "provider_session_id"))

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    csrf: Mapped[str]
    issuer: Mapped[str]
    subject: Mapped[str]
    email: Mapped[str | None]
    name: Mapped[str | None]
    organizations: Mapped[list[str]] = mapped_column(ARRAY(String))
    roles: Mapped[list[str]] = mapped_column(ARRAY(String))
    provider_session_id: Mapped[str | None]
    claims_expire_at: Mapped[datetime]
    secret: Mapped[bytes]
    renewing_until: Mapped[datetime | None]
    begun_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)

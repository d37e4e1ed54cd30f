"""Identifiers: a `NewType` over `str` for each noun, with a prefix that tells a reader what it names."""

import secrets
from typing import NewType

AccountId = NewType("AccountId", str)
ApiKeyId = NewType("ApiKeyId", str)
AuditEntryId = NewType("AuditEntryId", str)
BatchId = NewType("BatchId", str)
DatasetId = NewType("DatasetId", str)
EventId = NewType("EventId", str)
FileId = NewType("FileId", str)
JobId = NewType("JobId", str)
MemberId = NewType("MemberId", str)
ProjectId = NewType("ProjectId", str)
QuotaId = NewType("QuotaId", str)
RequestId = NewType("RequestId", str)
SoftPromptId = NewType("SoftPromptId", str)
UsageId = NewType("UsageId", str)
UserId = NewType("UserId", str)


def new_account_id() -> AccountId:
    """Return a fresh `acct_…`."""
    return AccountId(_fresh("acct"))


def new_api_key_id() -> ApiKeyId:
    """Return a fresh `key_…`: the name of a key, never its secret."""
    return ApiKeyId(_fresh("key"))


def new_audit_entry_id() -> AuditEntryId:
    """Return a fresh `aud_…`: one change that somebody made."""
    return AuditEntryId(_fresh("aud"))


def new_batch_id() -> BatchId:
    """Return a fresh `batch_…`."""
    return BatchId(_fresh("batch"))


def new_dataset_id() -> DatasetId:
    """Return a fresh `ds_…`: one version of a dataset."""
    return DatasetId(_fresh("ds"))


def new_event_id() -> EventId:
    """Return a fresh `evt_…`: one event, however often it is delivered."""
    return EventId(_fresh("evt"))


def new_file_id() -> FileId:
    """Return a fresh `file-batch-…`: with hyphens, as OpenAI's ids of files."""
    return FileId(f"file-batch-{secrets.token_hex(12)}")


def new_job_id() -> JobId:
    """Return a fresh `job_…`."""
    return JobId(_fresh("job"))


def new_member_id() -> MemberId:
    """Return a fresh `mem_…`: what one person is in an account or a project."""
    return MemberId(_fresh("mem"))


def new_project_id() -> ProjectId:
    """Return a fresh `proj_…`."""
    return ProjectId(_fresh("proj"))


def new_quota_id() -> QuotaId:
    """Return a fresh `quota_…`: one limit of an account."""
    return QuotaId(_fresh("quota"))


def new_request_id() -> RequestId:
    """Return a fresh `req_…`."""
    return RequestId(_fresh("req"))


def new_soft_prompt_id() -> SoftPromptId:
    """Return a fresh `sp_…`: one version of a soft prompt."""
    return SoftPromptId(_fresh("sp"))


def new_usage_id() -> UsageId:
    """Return a fresh `use_…`: unlike a request's id, no caller can choose it."""
    return UsageId(_fresh("use"))


def new_user_id() -> UserId:
    """Return a fresh `user_…`: a person, or a machine with an account at the identity provider."""
    return UserId(_fresh("user"))


def _fresh(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"

"""Identifiers: a `NewType` over `str` for each noun, with a prefix that tells a reader what it names."""

import secrets
from typing import NewType

AccountId = NewType("AccountId", str)
ApiKeyId = NewType("ApiKeyId", str)
DatasetId = NewType("DatasetId", str)
EventId = NewType("EventId", str)
JobId = NewType("JobId", str)
QuotaId = NewType("QuotaId", str)
RequestId = NewType("RequestId", str)
SoftPromptId = NewType("SoftPromptId", str)
UsageId = NewType("UsageId", str)


def new_account_id() -> AccountId:
    """Return a fresh `acct_…`."""
    return AccountId(_fresh("acct"))


def new_api_key_id() -> ApiKeyId:
    """Return a fresh `key_…`: the name of a key, never its secret."""
    return ApiKeyId(_fresh("key"))


def new_dataset_id() -> DatasetId:
    """Return a fresh `ds_…`: one version of a dataset."""
    return DatasetId(_fresh("ds"))


def new_event_id() -> EventId:
    """Return a fresh `evt_…`: one event, however often it is delivered."""
    return EventId(_fresh("evt"))


def new_job_id() -> JobId:
    """Return a fresh `job_…`."""
    return JobId(_fresh("job"))


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


def _fresh(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"

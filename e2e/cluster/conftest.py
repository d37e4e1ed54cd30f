"""An account of its own, with a limit that counts all its tokens: what the auditor looks into."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from auditor import Auditor
from cluster.kube import ClusterRecords, hunmin, new_key

MANY = "1000000000"


@dataclass(frozen=True)
class Account:
    """An account whose every token is counted."""

    name: str
    key: str
    auditor: Auditor


@pytest.fixture
def account() -> Iterator[Account]:
    """An account that nothing was asked for yet."""
    name = f"e2e-{secrets.token_hex(4)}"
    key = new_key(name)
    hunmin("quotas", "set", name, "tokens_per_month", MANY)
    records = ClusterRecords()
    ids = {row["name"]: row["id"] for row in records.rows("SELECT id, name FROM gateway.accounts")}
    return Account(name, key, Auditor(records, ids[name]))

"""Who a request acts for, once its key is known."""

from dataclasses import dataclass

from hunmin_contracts.ids import AccountId, ApiKeyId


@dataclass(frozen=True)
class Principal:
    """The account, and the key that spoke for it. An account without limits pays nothing for quotas."""

    account_id: AccountId
    key_id: ApiKeyId
    has_limits: bool

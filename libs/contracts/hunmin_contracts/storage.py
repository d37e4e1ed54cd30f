"""What an account keeps in a service, in bytes; and what an upload may come to, so that its limit is never exceeded."""

from typing import Annotated, NoReturn

from pydantic import Field

from hunmin_contracts.endpoint import Endpoint
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId
from hunmin_contracts.quotas import LimitName
from hunmin_contracts.schema import Schema

# Of an upload: what is kept of it may have so many bytes. None: as many as it takes.
MaxStoredBytes = Annotated[int | None, Field(ge=0, lt=2**63)]


class StorageRequest(Schema):
    """How much does the account keep?"""

    account_id: AccountId


class StorageUse(Schema):
    """The bytes of everything that it keeps in the service's files."""

    stored_bytes: int


def refuse_to_store(what: str, *, size: int | None, room: int) -> NoReturn:
    """Raise `quota_exceeded`: what is to be kept takes more than the account's limit leaves; None: nobody knows yet."""
    taking = "more" if size is None else f"{size:,}"
    raise HunminError(
        ErrorCode.QUOTA_EXCEEDED,
        f"{what} takes {taking} bytes, and your account's limit {LimitName.STORAGE_BYTES} leaves {room:,}. Delete "
        "datasets, files or soft prompts that you need no more, or ask the operator for a higher limit.",
        limit=LimitName.STORAGE_BYTES,
        room=room,
        requested=size,
    )


STORAGE = Endpoint("GET", "/v1/storage", StorageRequest, StorageUse)

"""The key of a person in a project. Nobody can send it: it is what the ledger and quotas know their calls by."""

import secrets

from hunmin_contracts.ids import AccountId, ApiKeyId, ProjectId, UserId, new_api_key_id
from hunmin_contracts.tenancy import KeyKind
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.tables import ApiKey

_DIGEST_BYTES = 32  # as long as that of any key, and the digest of none


async def console_key(session: AsyncSession, account_id: AccountId, project_id: ProjectId, user_id: UserId) -> ApiKeyId:
    """Return the person's key there, which is made if it is new. It has no scopes: their role says what they may do."""
    known = select(ApiKey.id).where(
        ApiKey.project_id == project_id, ApiKey.created_by == user_id, ApiKey.kind == KeyKind.CONSOLE
    )
    key_id = await session.scalar(known)
    if key_id is None:
        making = insert(ApiKey).values(
            id=new_api_key_id(),
            account_id=account_id,
            project_id=project_id,
            name="console",
            kind=KeyKind.CONSOLE,
            scopes=[],
            is_account_wide=False,
            prefix="",
            digest=secrets.token_bytes(_DIGEST_BYTES),
            created_by=user_id,
        )
        await session.execute(making.on_conflict_do_nothing())
        key_id = await session.scalar(known)
    return ApiKeyId(str(key_id))

"""The limits themselves, as their operator sets them and their account sees them."""

from dataclasses import dataclass

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, QuotaId, new_quota_id
from hunmin_contracts.quotas import ANY, LimitName, Purpose, Quota
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.quotas.amounts import KINDS
from hunmin_gateway.quotas.statements import STATES
from hunmin_gateway.tables import Account, QuotaLimit


@dataclass(frozen=True)
class AccountQuota:
    """A limit with the name of its account."""

    account: str
    quota: Quota


class Limits:
    """Works in the session it is given; whoever opened that commits. What is set holds from the next request on."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def set(
        self, account: str, name: LimitName, value: int, *, model: str = ANY, purpose: Purpose | str = ANY
    ) -> QuotaId:
        """Set the limit of that name of an account, or change its value; NOT_FOUND if there is no such account.

        What is taken stays taken when the value changes.
        """
        account_id = await self._session.scalar(select(Account.id).where(Account.name == account))
        if account_id is None:
            raise HunminError(
                ErrorCode.NOT_FOUND, f"There is no account {account!r}. An account is made with its first key."
            )
        setting = insert(QuotaLimit).values(
            id=new_quota_id(), account_id=account_id, name=name, model=model, purpose=purpose, value=value
        )
        limit_id = await self._session.scalar(
            setting.on_conflict_do_update(
                index_elements=[QuotaLimit.account_id, QuotaLimit.model, QuotaLimit.purpose, QuotaLimit.name],
                set_={"value": setting.excluded.value},
            ).returning(QuotaLimit.id)
        )
        return QuotaId(str(limit_id))

    async def remove(self, limit_id: QuotaId) -> None:
        """Limit it no more; NOT_FOUND if there is no limit of that id. Its counters are tidied away later."""
        removed = await self._session.scalar(
            delete(QuotaLimit).where(QuotaLimit.id == limit_id).returning(QuotaLimit.id)
        )
        if removed is None:
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no limit {limit_id}. List the limits to find its id.")

    async def list(self, account_id: AccountId | None = None) -> list[AccountQuota]:
        """Every limit of an account, or of all of them, as it stands now."""
        kinds = {
            "names": [*KINDS],
            "amounts": [0] * len(KINDS),
            "spans": [kind.span for kind in KINDS.values()],
        }
        rows = await self._session.execute(STATES, {"account_id": account_id} | kinds)
        return [
            AccountQuota(
                account=row.account,
                quota=Quota(
                    id=QuotaId(row.id),
                    name=LimitName(row.name),
                    model=row.model,
                    purpose=row.purpose,
                    value=row.value,
                    used=row.used,
                    reserved=row.reserved,
                    remaining=max(0, row.value - row.used - row.reserved),
                    resets_at=row.ends_at,
                ),
            )
            for row in rows
        ]

"""The limits themselves, as their operator sets them and their account sees them."""

from dataclasses import dataclass

from hunmin_contracts.audit import Action
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, QuotaId, new_quota_id
from hunmin_contracts.quotas import ANY, LimitInfo, LimitName, Purpose, Quota
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.audit.audit import Audit
from hunmin_gateway.quotas.amounts import KINDS
from hunmin_gateway.quotas.statements import STATES
from hunmin_gateway.tables import Account, QuotaLimit

LARGEST = 2**62  # of a value: a counter holds it, and what is taken beside it


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
        self,
        account: str,
        name: LimitName,
        value: int,
        *,
        model: str = ANY,
        purpose: Purpose | str = ANY,
        audit: Audit | None = None,
    ) -> QuotaId:
        """Set the limit of that name of an account, or change its value; NOT_FOUND if there is no such account.

        What is taken stays taken when the value changes. Where `audit` is None nobody takes note of it.
        """
        _check_scope(name, model=model, purpose=purpose)
        account_id = await self._session.scalar(select(Account.id).where(Account.name == account))
        if account_id is None:
            raise HunminError(
                ErrorCode.NOT_FOUND, f"There is no account {account!r}. Make it by `hunmin accounts create NAME`."
            )
        same = (QuotaLimit.name == name, QuotaLimit.model == model, QuotaLimit.purpose == purpose)
        known = select(QuotaLimit).where(QuotaLimit.account_id == account_id, *same)
        before = await self._session.scalar(known.with_for_update())
        was = None if before is None else LimitInfo.model_validate(before, from_attributes=True)
        setting = insert(QuotaLimit).values(
            id=new_quota_id(), account_id=account_id, name=name, model=model, purpose=purpose, value=value
        )
        limit_id = await self._session.scalar(
            setting.on_conflict_do_update(
                index_elements=[QuotaLimit.account_id, QuotaLimit.model, QuotaLimit.purpose, QuotaLimit.name],
                set_={"value": setting.excluded.value},
            ).returning(QuotaLimit.id)
        )
        is_now = LimitInfo(id=QuotaId(str(limit_id)), name=name, model=model, purpose=purpose, value=value)
        if audit is not None:
            owner = AccountId(account_id)
            await audit.note(Action.LIMIT_SET, is_now.id, account_id=owner, before=was, after=is_now)
        return is_now.id

    async def remove(
        self, limit_id: QuotaId, *, account_id: AccountId | None = None, audit: Audit | None = None
    ) -> None:
        """Limit it no more; NOT_FOUND if there is no limit of that id, or it is not of that account.

        Its counters are tidied away later.
        """
        removing = delete(QuotaLimit).where(QuotaLimit.id == limit_id)
        if account_id is not None:
            removing = removing.where(QuotaLimit.account_id == account_id)
        removed = await self._session.scalar(removing.returning(QuotaLimit))
        if removed is None:
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no limit {limit_id}. List the limits to find its id.")
        if audit is not None:
            was, owner = LimitInfo.model_validate(removed, from_attributes=True), AccountId(removed.account_id)
            await audit.note(Action.LIMIT_REMOVED, limit_id, account_id=owner, before=was)

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


def _check_scope(name: LimitName, *, model: str, purpose: Purpose | str) -> None:
    """Refuse a limit that would never count anything."""
    if name is LimitName.STORAGE_BYTES and (model, purpose) != (ANY, ANY):
        param = "purpose" if model == ANY else "model"
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            f"{name} counts all that an account keeps, whatever it is for. Leave the {param} out.",
            param=param,
        )
    if "@" in model:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            f"{model!r} is a soft prompt, which counts to its base model. Name that one.",
            param="model",
        )
    if name is LimitName.RUNNING_JOBS and purpose not in (ANY, Purpose.TUNING):
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            f"{name} counts tuning jobs. Leave the purpose out, or make it {Purpose.TUNING}.",
            param="purpose",
        )

"""The statements that end a request: its row of usage, and what quotas hold for it, together or not at all."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hunmin_contracts.usage import Outcome
from hunmin_kit.data import Quick
from sqlalchemy import text

from hunmin_gateway.quotas.amounts import KINDS, Amounts
from hunmin_gateway.quotas.holdings import GIVE_BACK
from hunmin_gateway.usage.record import UsageRecord

_COLUMNS = [field.name for field in fields(UsageRecord) if field.name not in {"reserved_for", "is_awaited"}]
_VALUES = {name: f":{name}" for name in _COLUMNS} | {
    "project_id": "coalesce(CAST(:project_id AS text), (SELECT project_id FROM api_keys WHERE api_keys.id = :key_id))"
}

# The row's id is the key: who writes it a second time writes nothing, and settles nothing. What a sweep gave back is
# not given back again, but what was used counts all the same, in the minute and the month in which the request began.
# Of a request that was cut the rest is held on, of tokens though not of what runs at a time: what the engine computed
# before it knew has room when it is told (usage/lost.py). If it never is, the lease runs out, which nobody renews.
# A reservation that PostgreSQL has lost in a crash, since no commit of one waits for the disk (hunmin_kit.data.quick),
# is found missing here: what was used counts in the limits that applied.
SETTLE = Quick(
    text(f"""
WITH written AS (
    INSERT INTO usage ({", ".join(_VALUES)}) VALUES ({", ".join(_VALUES.values())})
    ON CONFLICT DO NOTHING RETURNING coalesce(corrects, id) AS id
), reserved AS (
    SELECT usage_id, limit_id, begins_at, name, CASE WHEN swept_at IS NULL THEN amount ELSE 0 END AS amount
    FROM quota_reservations JOIN written ON usage_id = written.id
    FOR UPDATE OF quota_reservations
), held AS (
    SELECT reserved.*, coalesce(spent.amount, 0) AS spent,
           CASE WHEN :is_awaited THEN greatest(reserved.amount - spent.amount, 0) ELSE 0 END AS rest
    FROM reserved
    LEFT JOIN unnest(CAST(:spent_names AS text[]), CAST(:spent_amounts AS bigint[])) AS spent (name, amount)
              ON spent.name = reserved.name
), deleted AS (
    DELETE FROM quota_reservations AS gone USING held
    WHERE NOT :is_awaited AND gone.usage_id = held.usage_id AND gone.limit_id = held.limit_id
), kept AS (
    UPDATE quota_reservations AS kept
    SET amount = held.rest, swept_at = CASE WHEN held.rest > 0 THEN NULL ELSE statement_timestamp() END FROM held
    WHERE :is_awaited AND kept.usage_id = held.usage_id AND kept.limit_id = held.limit_id
), settled AS (
    SELECT counter.limit_id, counter.begins_at, held.amount - held.rest AS amount, held.spent
    FROM held
    JOIN quota_counters AS counter ON counter.limit_id = held.limit_id AND counter.begins_at = held.begins_at
    ORDER BY counter.limit_id, counter.begins_at
    FOR UPDATE OF counter
), missed AS (
    INSERT INTO quota_counters AS counter (limit_id, begins_at, ends_at, used, reserved)
    SELECT limits.id, date_trunc(spent.span, begun.at, 'UTC'),
           (date_trunc(spent.span, begun.at AT TIME ZONE 'UTC') + CAST('1 ' || spent.span AS interval))
               AT TIME ZONE 'UTC',
           spent.amount, 0
    FROM written
    CROSS JOIN (SELECT CAST(:started_at AS timestamptz) AS at) AS begun
    JOIN quota_limits AS limits
         ON limits.account_id = :account_id AND limits.model IN ('*', CAST(:base_model AS text))
         AND limits.purpose IN ('*', CAST(:purpose AS text))
    JOIN unnest(CAST(:spent_names AS text[]), CAST(:spent_amounts AS bigint[]), CAST(:spent_spans AS text[]))
         AS spent (name, amount, span) ON spent.name = limits.name
    WHERE CAST(:base_model AS text) IS NOT NULL AND spent.amount > 0 AND NOT EXISTS (SELECT FROM held)
    ORDER BY limits.id
    ON CONFLICT (limit_id, begins_at) DO UPDATE SET used = counter.used + excluded.used
)
UPDATE quota_counters AS counter
SET reserved = counter.reserved - settled.amount, used = counter.used + settled.spent
FROM settled WHERE counter.limit_id = settled.limit_id AND counter.begins_at = settled.begins_at
""")  # noqa: S608  # the names are those of our own fields
)

RELEASE = Quick(GIVE_BACK)


def settling(record: UsageRecord) -> Mapping[str, Any]:
    """Return what SETTLE is given: a failed request costs nothing, not even the request, and a correction is none."""
    spent, reserved = _amounts(record).used(), record.reserved_for
    return {name: getattr(record, name) for name in _COLUMNS} | {
        "spent_names": [*spent],
        "spent_amounts": [*spent.values()],
        "spent_spans": [KINDS[name].span for name in spent],
        "is_awaited": record.is_awaited,
        "base_model": None if reserved is None else reserved.model,
        "purpose": None if reserved is None else reserved.purpose,
    }


def _amounts(record: UsageRecord) -> Amounts:
    if record.status is Outcome.FAILED:
        return Amounts()
    tokens = record.prompt_tokens + record.completion_tokens
    requests = 0 if record.corrects is not None else 1
    amounts = Amounts(requests, tokens, record.backward_tokens)
    return amounts if record.batch_id is None else amounts.halved()

"""The statements of quotas, each whole in itself. Knows no Python value but what is bound.

All times are the database's. A counter belongs to a limit and to the minute or month that begins at `begins_at`; what
runs at a time is counted in a single one, from the epoch on.

No deadlock: every statement that waits for counters takes them in the order of limit and beginning, and holds no
counter while it waits for a reservation. Renewing, sweeping and tidying wait for no reservation at all.
"""

from hunmin_kit.data import Quick
from sqlalchemy import text

_SPANS = """
    SELECT kind.name, kind.amount, kind.span,
           coalesce(date_trunc(kind.span, statement_timestamp(), 'UTC'), 'epoch') AS begins_at,
           (date_trunc(kind.span, statement_timestamp() AT TIME ZONE 'UTC') + CAST('1 ' || kind.span AS interval))
               AT TIME ZONE 'UTC' AS ends_at
    FROM unnest(CAST(:names AS text[]), CAST(:amounts AS bigint[]), CAST(:spans AS text[])) AS kind (name, amount, span)
"""

# Takes the amount of each limit that applies and notes what it took, if every one of them has room; else it takes
# nothing. Where a limit has lost its room since the statement's snapshot, what is noted for it has no counter: NOT NULL
# refuses that, and with it the whole statement (NullRefused), which is then to be made again.
RESERVE = Quick(
    text(f"""
WITH kinds AS ({_SPANS}), wanted AS (
    SELECT limits.id, limits.name, limits.model, limits.purpose, limits.value, kinds.amount, kinds.begins_at,
           kinds.ends_at, coalesce(counter.used, 0) AS used, coalesce(counter.reserved, 0) AS reserved
    FROM quota_limits AS limits
    JOIN kinds ON kinds.name = limits.name
    LEFT JOIN quota_counters AS counter ON counter.limit_id = limits.id AND counter.begins_at = kinds.begins_at
    WHERE limits.account_id = :account_id AND limits.model IN ('*', :model) AND limits.purpose IN ('*', :purpose)
), granted AS (
    SELECT * FROM wanted
    WHERE NOT EXISTS (SELECT FROM wanted AS other WHERE other.used + other.reserved + other.amount > other.value)
), taken AS (
    INSERT INTO quota_counters AS counter (limit_id, begins_at, ends_at, used, reserved)
    SELECT id, begins_at, ends_at, 0, amount FROM granted ORDER BY id
    ON CONFLICT (limit_id, begins_at) DO UPDATE SET reserved = counter.reserved + excluded.reserved
    WHERE counter.used + counter.reserved + excluded.reserved
          <= (SELECT value FROM quota_limits WHERE id = counter.limit_id)
    RETURNING counter.limit_id, counter.begins_at, counter.used, counter.reserved
), noted AS (
    INSERT INTO quota_reservations (usage_id, limit_id, name, begins_at, amount, expires_at)
    SELECT CAST(:usage_id AS text), granted.id, granted.name, taken.begins_at, granted.amount,
           statement_timestamp() + make_interval(secs => :lease_s)
    FROM granted LEFT JOIN taken ON taken.limit_id = granted.id
)
SELECT wanted.id, wanted.name, wanted.model, wanted.purpose, wanted.value, wanted.amount, wanted.ends_at,
       coalesce(taken.used, wanted.used) AS used, coalesce(taken.reserved, wanted.reserved) AS reserved,
       taken.limit_id IS NOT NULL AS is_taken, statement_timestamp() AS read_at
FROM wanted LEFT JOIN taken ON taken.limit_id = wanted.id
ORDER BY wanted.id
""")  # noqa: S608  # a part of our own
)

# Every limit of an account, or of all accounts, as it stands.
STATES = text(f"""
WITH kinds AS ({_SPANS})
SELECT limits.id, accounts.name AS account, limits.name, limits.model, limits.purpose, limits.value,
       coalesce(counter.used, 0) AS used, coalesce(counter.reserved, 0) AS reserved, kinds.ends_at,
       statement_timestamp() AS read_at
FROM quota_limits AS limits
JOIN kinds ON kinds.name = limits.name
JOIN accounts ON accounts.id = limits.account_id
LEFT JOIN quota_counters AS counter ON counter.limit_id = limits.id AND counter.begins_at = kinds.begins_at
WHERE CAST(:account_id AS text) IS NULL OR limits.account_id = :account_id
ORDER BY accounts.name, limits.model, limits.purpose, limits.name
""")  # noqa: S608  # a part of our own

# Puts off when the reservations of running calls expire. One that is just being settled is passed over.
RENEW = text("""
UPDATE quota_reservations SET expires_at = statement_timestamp() + make_interval(secs => :lease_s)
WHERE (usage_id, limit_id) IN (
    SELECT usage_id, limit_id FROM quota_reservations
    WHERE usage_id = ANY(CAST(:usage_ids AS text[])) AND swept_at IS NULL
    FOR UPDATE SKIP LOCKED
)
""")

# Gives back what is reserved for calls that nobody runs any more. The reservation stays, marked as swept, so that a
# call that is settled after all counts where it began, and gives nothing back twice.
SWEEP = text("""
WITH due AS (
    SELECT usage_id, limit_id FROM quota_reservations
    WHERE swept_at IS NULL AND expires_at < statement_timestamp()
    FOR UPDATE SKIP LOCKED
), swept AS (
    UPDATE quota_reservations AS held SET swept_at = statement_timestamp()
    FROM due WHERE held.usage_id = due.usage_id AND held.limit_id = due.limit_id
    RETURNING held.usage_id, held.limit_id, held.begins_at, held.amount
), freed AS (
    SELECT limit_id, begins_at, sum(amount) AS amount FROM swept GROUP BY limit_id, begins_at
), locked AS (
    SELECT counter.limit_id, counter.begins_at, freed.amount
    FROM quota_counters AS counter
    JOIN freed ON freed.limit_id = counter.limit_id AND freed.begins_at = counter.begins_at
    ORDER BY counter.limit_id, counter.begins_at
    FOR UPDATE OF counter
), given_back AS (
    UPDATE quota_counters AS counter SET reserved = counter.reserved - locked.amount
    FROM locked WHERE counter.limit_id = locked.limit_id AND counter.begins_at = locked.begins_at
)
SELECT count(DISTINCT usage_id) FROM swept
""")

# Counters go an hour after their end, or with their limit: no statement that began in their time is still on its way.
# Swept reservations go after a week: Kafka keeps an event for as long, and nobody settles after it.
TIDY_COUNTERS = text("""
DELETE FROM quota_counters WHERE (limit_id, begins_at) IN (
    SELECT limit_id, begins_at FROM quota_counters AS counter
    WHERE reserved = 0 AND (
        ends_at < statement_timestamp() - interval '1 hour'
        OR ends_at IS NULL AND NOT EXISTS (SELECT FROM quota_limits WHERE id = counter.limit_id)
    )
    FOR UPDATE SKIP LOCKED
)
""")
TIDY_RESERVATIONS = text("""
DELETE FROM quota_reservations WHERE (usage_id, limit_id) IN (
    SELECT usage_id, limit_id FROM quota_reservations
    WHERE swept_at < statement_timestamp() - interval '7 days'
    FOR UPDATE SKIP LOCKED
)
""")

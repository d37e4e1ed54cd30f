"""The statements that claim work on batches and lines, and apply what came of it, each whole in itself.

A claim is a token that a row has until its `due_at`; then anybody may take it. Who applies something names the token,
and where another took over, nothing is applied. All times are the database's.

No deadlock: every statement that locks a batch and its lines takes the batch first, and batches by id.
"""

from sqlalchemy import text

# Takes lines for as much room as a gateway has: those that come first in each batch, and of the accounts with the
# fewest running lines first, so that a long batch lets others by. Those of an account that is suspended, or of a
# project that is archived, wait.
CLAIM_LINES = text("""
WITH open AS (
    SELECT batch.id, batch.account_id, batch.project_id, batch.key_id, batch.key_kind, batch.endpoint, batch.created_at
    FROM batches AS batch
    JOIN accounts ON accounts.id = batch.account_id JOIN projects ON projects.id = batch.project_id
    WHERE batch.status = 'in_progress' AND batch.due_at <= statement_timestamp()
          AND batch.expires_at > statement_timestamp()
          AND accounts.suspended_at IS NULL AND projects.archived_at IS NULL
    ORDER BY batch.id FOR SHARE OF batch
), running AS (
    SELECT batches.account_id, count(*) AS lines
    FROM batch_lines AS line JOIN batches ON batches.id = line.batch_id
    WHERE line.claim IS NOT NULL AND line.due_at > statement_timestamp()
    GROUP BY batches.account_id
), candidates AS (
    SELECT line.batch_id, line.number, open.created_at,
           row_number() OVER (PARTITION BY open.account_id ORDER BY open.created_at, line.batch_id, line.number)
               + coalesce(running.lines, 0) AS turn
    FROM open
    CROSS JOIN LATERAL (
        SELECT batch_id, number FROM batch_lines
        WHERE batch_id = open.id AND due_at <= statement_timestamp() ORDER BY number LIMIT :room
    ) AS line
    LEFT JOIN running ON running.account_id = open.account_id
), chosen AS (
    SELECT batch_id, number FROM candidates ORDER BY turn, created_at, batch_id, number LIMIT :room
)
UPDATE batch_lines AS line
SET claim = gen_random_uuid()::text, attempts = line.attempts + 1,
    due_at = statement_timestamp() + make_interval(secs => :lease_s)
FROM chosen JOIN open ON open.id = chosen.batch_id
WHERE line.batch_id = chosen.batch_id AND line.number = chosen.number AND line.due_at <= statement_timestamp()
RETURNING line.batch_id, line.number, line.claim, line.body, line.attempts, open.account_id, open.project_id,
          open.key_id, open.key_kind, open.endpoint,
          EXISTS (SELECT FROM quota_limits WHERE quota_limits.account_id = open.account_id) AS has_limits
""")

# Puts off when the claims run out.
RENEW_LINES = text("""
UPDATE batch_lines SET due_at = statement_timestamp() + make_interval(secs => :lease_s)
WHERE claim = ANY(CAST(:claims AS text[])) RETURNING claim
""")

# The claims whose lines are still wanted.
WANTED_LINES = text("""
SELECT line.claim FROM batch_lines AS line JOIN batches ON batches.id = line.batch_id
WHERE line.claim = ANY(CAST(:claims AS text[])) AND batches.status = 'in_progress'
      AND batches.expires_at > statement_timestamp()
""")

# Writes the result of a line, counts it, and with the last of them ends the batch's running. The counts are read as the
# lock finds them: the statement's own snapshot is older than what others have counted while it waited.
APPLY_LINE = text("""
WITH held AS (
    SELECT id, status, total, completed, failed FROM batches WHERE id = :batch_id FOR UPDATE
), applied AS (
    UPDATE batch_lines AS line
    SET claim = NULL, due_at = NULL, request_id = :request_id, status_code = :status_code, response = :response
    FROM held WHERE line.batch_id = held.id AND line.number = :number AND line.claim = :claim
    RETURNING (:status_code < 400) AS is_completed
), counted AS (
    SELECT id, is_completed, status = 'in_progress' AND completed + failed + 1 = total AS is_last
    FROM held CROSS JOIN applied
)
UPDATE batches
SET completed = completed + is_completed::int, failed = failed + (NOT is_completed)::int,
    status = CASE WHEN is_last THEN 'finalizing' ELSE status END,
    ends_as = CASE WHEN is_last THEN 'completed' ELSE ends_as END,
    finalizing_at = CASE WHEN is_last THEN statement_timestamp() ELSE finalizing_at END,
    due_at = CASE WHEN is_last THEN statement_timestamp() ELSE due_at END,
    attempts = CASE WHEN is_last THEN 0 ELSE attempts END
FROM counted WHERE batches.id = counted.id
RETURNING is_last
""")

# Gives a line back that was not run to its end, to be taken again later; the batch as a whole may wait, too.
RELEASE_LINE = text("""
WITH paused AS (
    UPDATE batches SET due_at = greatest(due_at, statement_timestamp() + make_interval(secs => :pause_s))
    WHERE id = :batch_id AND status = 'in_progress' AND :pause_s > 0
    RETURNING id
)
UPDATE batch_lines AS line
SET claim = NULL, due_at = statement_timestamp() + make_interval(secs => :delay_s),
    attempts = line.attempts - CAST(:is_free AS boolean)::int
WHERE line.batch_id = :batch_id AND line.number = :number AND line.claim = :claim
      AND (SELECT count(*) FROM paused) >= 0
""")

# Takes a batch that is to be validated, or whose files are to be written: of that no line runs any more.
CLAIM_BATCH = text("""
UPDATE batches SET claim = gen_random_uuid()::text, attempts = attempts + 1,
                   due_at = statement_timestamp() + make_interval(secs => :lease_s)
WHERE id = (
    SELECT id FROM batches AS batch
    WHERE status IN ('validating', 'finalizing', 'cancelling') AND due_at <= statement_timestamp()
          AND NOT EXISTS (
              SELECT FROM batch_lines
              WHERE batch_id = batch.id AND claim IS NOT NULL AND due_at > statement_timestamp()
          )
    ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING id, claim, account_id, project_id, endpoint, input_file_id, status, coalesce(ends_as, '') AS ends_as,
          in_progress_at IS NOT NULL AS has_run, attempts
""")

# Puts off when the claim runs out; tells whether it still holds.
RENEW_BATCH = text("""
UPDATE batches SET due_at = statement_timestamp() + make_interval(secs => :lease_s)
WHERE id = :batch_id AND claim = :claim AND due_at IS NOT NULL RETURNING id
""")

# Gives it back, to be tried again later: that was no fault of the batch's.
RELEASE_BATCH = text("""
UPDATE batches SET claim = NULL, attempts = attempts - 1,
                   due_at = statement_timestamp() + make_interval(secs => :delay_s)
WHERE id = :batch_id AND claim = :claim
""")

# Ends the running of those whose time is over.
EXPIRE = text("""
UPDATE batches SET status = 'finalizing', ends_as = 'expired', finalizing_at = statement_timestamp(),
                   due_at = statement_timestamp(), claim = NULL, attempts = 0
WHERE id IN (
    SELECT id FROM batches
    WHERE status IN ('validating', 'in_progress') AND expires_at <= statement_timestamp()
    ORDER BY id FOR UPDATE SKIP LOCKED
)
RETURNING id
""")

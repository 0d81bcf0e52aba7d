-- alert: not-persisted
-- severity: ticket
-- window: 15 minutes
-- threshold: >= 3
-- runbook: runbook.md#not-persisted
-- The ends of these generations are not in the database yet: their candidates are billed, and are kept for 24 hours. A lost reply is
-- repaired within seconds, so it takes three, or one whose last attempt has failed.
SELECT
    sumIf(_sample_interval, blob1 = 'generation' AND double16 = 0) AS value,
    3 AS threshold,
    sumIf(_sample_interval, blob1 = 'generation') AS n
FROM ai_sessions
WHERE timestamp > NOW() - INTERVAL '15' MINUTE
  AND blob1 IN ('generation', 'job')
HAVING value >= 3 OR sumIf(_sample_interval, blob1 = 'job' AND blob2 = 'persist' AND blob3 = 'abandoned') >= 1

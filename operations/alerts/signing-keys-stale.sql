-- alert: signing-keys-stale
-- severity: ticket
-- window: 30 minutes
-- threshold: >= 3
-- runbook: runbook.md#signing-keys-stale
-- The sign-in service's key set could not be fetched: by isolates whose keys are older than 10 minutes (they use them for 24 hours), or
-- for requests that were refused because no key is cached. The next refresh follows in 30 seconds, so it takes three.
SELECT
    sum(_sample_interval) AS value,
    3 AS threshold,
    sum(_sample_interval) AS n
FROM ai_sessions
WHERE timestamp > NOW() - INTERVAL '30' MINUTE
  AND (
      (blob1 = 'job' AND blob2 = 'signing_keys' AND double2 > 600000)
      OR (blob1 LIKE '/%' AND blob3 = 'auth_unavailable')
  )
HAVING value >= 3

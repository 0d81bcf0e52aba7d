-- alert: rate-limited-share
-- severity: ticket
-- window: 15 minutes
-- threshold: > 0.2
-- runbook: runbook.md#rate-limited-share
-- The share of requests that a limit refuses (429): one client in a loop, or limits that are too low for ordinary use. Fires from 20
-- requests on.
SELECT
    sumIf(_sample_interval, double1 = 429) / sum(_sample_interval) AS value,
    0.2 AS threshold,
    sum(_sample_interval) AS n
FROM ai_sessions
WHERE timestamp > NOW() - INTERVAL '15' MINUTE
  AND blob1 LIKE '/ai-sessions%'
HAVING n >= 20 AND value > 0.2

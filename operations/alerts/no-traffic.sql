-- alert: no-traffic
-- severity: page
-- window: 1 hour
-- threshold: < 1
-- runbook: runbook.md#no-traffic
-- No request for sessions has arrived: the route, the domain, the page or the Worker itself is gone. For a service with quiet nights, set
-- the window to its longest quiet time.
SELECT
    sum(_sample_interval) AS value,
    1 AS threshold,
    sum(_sample_interval) AS n
FROM ai_sessions
WHERE timestamp > NOW() - INTERVAL '1' HOUR
  AND blob1 LIKE '/ai-sessions%'
HAVING value < 1

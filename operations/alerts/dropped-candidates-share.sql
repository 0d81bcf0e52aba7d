-- alert: dropped-candidates-share
-- severity: ticket
-- window: 30 minutes
-- threshold: > 0.3
-- runbook: runbook.md#dropped-candidates-share
-- The share of the model's candidates that are invalid: empty, too long, unreadable or duplicate. Those over MAX_CANDIDATES are not
-- counted. A model or its prompt has become worse. Fires from 100 candidates on.
SELECT
    sum(_sample_interval * (double6 - double11)) / sum(_sample_interval * (double5 + double6 - double11)) AS value,
    0.3 AS threshold,
    sum(_sample_interval * (double5 + double6 - double11)) AS n
FROM ai_sessions
WHERE timestamp > NOW() - INTERVAL '30' MINUTE
  AND blob1 = 'generation'
HAVING n >= 100 AND value > 0.3

-- alert: dollars-per-hour
-- severity: page
-- window: 1 hour
-- threshold: > 5
-- runbook: runbook.md#dollars-per-hour
-- US dollars that the model API has reported for all generations. 5 dollars are some 5000 generations of the default model: set it to
-- several times the dollars of your busiest hour.
SELECT
    sum(_sample_interval * double4) AS value,
    5 AS threshold,
    sum(_sample_interval) AS n
FROM ai_sessions
WHERE timestamp > NOW() - INTERVAL '1' HOUR
  AND blob1 = 'generation'
HAVING value > 5

-- alert: first-candidate-p95
-- severity: ticket
-- window: 30 minutes
-- threshold: > 8000
-- runbook: runbook.md#first-candidate-p95
-- Milliseconds from the acceptance of a generation to its first candidate, the 95th percentile: the wait that a learner sees. Fires
-- from 20 generations with a candidate on.
SELECT
    quantileExactWeighted(0.95)(double13, _sample_interval) AS value,
    8000 AS threshold,
    sum(_sample_interval) AS n
FROM ai_sessions
WHERE timestamp > NOW() - INTERVAL '30' MINUTE
  AND blob1 = 'generation'
  AND double13 > 0
HAVING n >= 20 AND value > 8000

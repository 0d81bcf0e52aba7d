-- alert: availability-slow-burn
-- severity: ticket
-- window: 6 hours, and still in the last 30 minutes
-- threshold: > 0.03
-- runbook: runbook.md#availability-slow-burn
-- The objective is that 99.5 % of accepted generations and of reads succeed. Failures use the budget of 30 days 6 times too
-- fast: 5 % of it is gone within these hours. Fires from 20 events on.
SELECT
    sum(weight * failed) / sum(weight) AS value,
    0.03 AS threshold,
    sum(weight) AS n
FROM (
    SELECT
        _sample_interval AS weight,
        if(timestamp > NOW() - INTERVAL '30' MINUTE, 1, 0) AS recent,
        if(blob1 = 'generation', if(blob2 IN ('completed', 'ai_refused', 'cancelled') AND double16 = 1, 0, 1), if(double1 >= 500, 1, 0)) AS failed
    FROM ai_sessions
    WHERE timestamp > NOW() - INTERVAL '6' HOUR
      AND (
          blob1 = 'generation'
          OR (blob1 LIKE '/ai-sessions%' AND blob2 IN ('GET', 'DELETE') AND (double1 < 400 OR double1 >= 500))
          OR (blob1 = '/ai-sessions' AND blob2 = 'POST' AND double1 >= 500 AND double6 = 0)
      )
)
HAVING n >= 20 AND value > 0.03 AND sum(weight * failed * recent) > 0.03 * sum(weight * recent)

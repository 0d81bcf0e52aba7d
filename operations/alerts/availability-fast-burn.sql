-- alert: availability-fast-burn
-- severity: page
-- window: 1 hour, and still in the last 5 minutes
-- threshold: > 0.072
-- runbook: runbook.md#availability-fast-burn
-- The objective is that 99.5 % of accepted generations and of reads succeed. Failures use the budget of 30 days 14.4 times too
-- fast: 2 % of it is gone within this hour. Fires from 20 events on.
SELECT
    sum(weight * failed) / sum(weight) AS value,
    0.072 AS threshold,
    sum(weight) AS n
FROM (
    SELECT
        _sample_interval AS weight,
        if(timestamp > NOW() - INTERVAL '5' MINUTE, 1, 0) AS recent,
        if(blob1 = 'generation', if(blob2 IN ('completed', 'ai_refused', 'cancelled') AND double16 = 1, 0, 1), if(double1 >= 500, 1, 0)) AS failed
    FROM ai_sessions
    WHERE timestamp > NOW() - INTERVAL '1' HOUR
      AND (
          blob1 = 'generation'
          OR (blob1 LIKE '/ai-sessions%' AND blob2 IN ('GET', 'DELETE') AND (double1 < 400 OR double1 >= 500))
          OR (blob1 = '/ai-sessions' AND blob2 = 'POST' AND double1 >= 500 AND double6 = 0)
      )
)
HAVING n >= 20 AND value > 0.072 AND sum(weight * failed * recent) > 0.072 * sum(weight * recent)

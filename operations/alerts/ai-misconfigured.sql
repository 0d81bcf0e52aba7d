-- alert: ai-misconfigured
-- severity: page
-- window: 15 minutes
-- threshold: >= 1
-- runbook: runbook.md#ai-misconfigured
-- The model API refuses this deployment: its key, its credit, a model's name or a required setting. Every generation fails until an
-- operator corrects that, so one is enough.
SELECT
    sumIf(_sample_interval, blob2 = 'ai_misconfigured') AS value,
    1 AS threshold,
    sum(_sample_interval) AS n
FROM ai_sessions
WHERE timestamp > NOW() - INTERVAL '15' MINUTE
  AND blob1 = 'generation'
HAVING value >= 1

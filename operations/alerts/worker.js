// A scheduled Worker that runs the alerts over Analytics Engine and sends a webhook when the firing ones change.
//
// Secrets: ANALYTICS_TOKEN (permission: Account Analytics, Read), WEBHOOK_URL. Variables: ACCOUNT_ID.
// KV (FIRING): the names of the alerts that fired at the last run, so that a webhook is sent at the beginning and at the end of each.
import aiMisconfigured from './ai-misconfigured.sql';
import availabilityFastBurn from './availability-fast-burn.sql';
import availabilitySlowBurn from './availability-slow-burn.sql';
import dollarsPerHour from './dollars-per-hour.sql';
import droppedCandidatesShare from './dropped-candidates-share.sql';
import firstCandidateP95 from './first-candidate-p95.sql';
import noTraffic from './no-traffic.sql';
import notPersisted from './not-persisted.sql';
import rateLimitedShare from './rate-limited-share.sql';
import signingKeysStale from './signing-keys-stale.sql';

const FILES = [
  aiMisconfigured,
  availabilityFastBurn,
  availabilitySlowBurn,
  dollarsPerHour,
  droppedCandidatesShare,
  firstCandidateP95,
  noTraffic,
  notPersisted,
  rateLimitedShare,
  signingKeysStale,
];

/** A query of the platform that takes longer has failed. */
const TIMEOUT_MS = 30_000;

export default {
  async scheduled(_event, env) {
    const before = JSON.parse((await env.FIRING.get('names')) ?? '[]');
    const results = await Promise.all(FILES.map((file) => evaluate(file, env, before)));
    const firing = results.filter(({ fires }) => fires);
    const names = firing.map(({ alert }) => alert);
    const resolved = before.filter((name) => !names.includes(name));
    const isNew = names.some((name) => !before.includes(name));
    if (!isNew && resolved.length === 0) return;
    await send({ firing: firing.map(({ fires, ...alert }) => alert), resolved }, env);
    // Stored after the webhook: one that was not received is sent again at the next run.
    await env.FIRING.put('names', JSON.stringify(names));
  },
};

/** Runs one alert. One that cannot be evaluated stays as it was, and fires an alert of its own. */
async function evaluate(file, env, before) {
  const { head, query } = read(file);
  try {
    const [row] = await run(query, env);
    // Integers of 64 bits are strings.
    const figures = row && { value: Number(row.value), n: Number(row.n) };
    return { ...head, ...figures, fires: row !== undefined };
  } catch (error) {
    const wasFiring = before.includes(head.alert);
    return { ...head, alert: wasFiring ? head.alert : `${head.alert}-not-evaluated`, error: String(error), fires: true };
  }
}

/** The lines `-- name: value` at the top, and the query without comments. */
function read(file) {
  const head = Object.fromEntries([...file.matchAll(/^-- (\w+): (.+)$/gm)].map(([, name, value]) => [name, value]));
  return { head, query: file.replace(/^--.*\n/gm, '') };
}

/** https://developers.cloudflare.com/analytics/analytics-engine/sql-api/ */
async function run(query, { ACCOUNT_ID, ANALYTICS_TOKEN }) {
  const response = await fetch(`https://api.cloudflare.com/client/v4/accounts/${ACCOUNT_ID}/analytics_engine/sql`, {
    method: 'POST',
    headers: { authorization: `Bearer ${ANALYTICS_TOKEN}` },
    body: query,
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!response.ok) throw new Error(`the SQL API responded with ${response.status}`);
  return (await response.json()).data;
}

/** `text` is what Slack and its like show. */
async function send({ firing, resolved }, { WEBHOOK_URL }) {
  const lines = [
    ...firing.map(({ severity, alert, value, threshold, n, error, runbook }) => `${severity}: ${alert}: ${error ?? `${value} (${threshold}), n = ${n}`}, ${runbook}`),
    ...resolved.map((alert) => `resolved: ${alert}`),
  ];
  const response = await fetch(WEBHOOK_URL, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ text: lines.join('\n'), firing, resolved }),
  });
  if (!response.ok) throw new Error(`the webhook responded with ${response.status}`);
}

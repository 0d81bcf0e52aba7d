/** The ledger of one user: three sliding windows, each in a hundred buckets. As JSON: `{ name: [[bucket, count], …] }`. */

const BUCKETS = 100;

/** The quotas of the windows, from variables such as `10/60`. */
export const quotasOf = (env) =>
  ['burst', 'generations', 'attempts'].map((name) => {
    const [count, window_s] = env[`RATE_LIMIT_${name.toUpperCase()}`].split('/').map(Number);
    return { name, count, window_s };
  });

const bucket_ms = ({ window_s }) => (window_s * 1000) / BUCKETS;

/** Counts a reservation in these windows if each has one left; returns whether it did. */
export function reserve(ledger, quotas, names, now_ms) {
  const wanted = quotas.filter(({ name }) => names.includes(name));
  for (const quota of wanted) ledger[quota.name] = current(ledger, quota, now_ms);
  if (wanted.some((quota) => remaining(ledger, quota) < 1)) return false;
  for (const quota of wanted) add(ledger, quota, now_ms);
  return true;
}

/** Takes back the latest reservation of a window. */
export function refund(ledger, name) {
  const latest = ledger[name]?.at(-1);
  if (latest !== undefined) latest[1] -= 1;
}

/** The reservations that still count. */
function current(ledger, quota, now_ms) {
  const first = Math.floor(now_ms / bucket_ms(quota)) - BUCKETS;
  return (ledger[quota.name] ?? []).filter(([bucket, count]) => bucket >= first && count > 0);
}

function add(ledger, quota, now_ms) {
  const bucket = Math.floor(now_ms / bucket_ms(quota));
  const list = ledger[quota.name];
  if (list.at(-1)?.[0] === bucket) list.at(-1)[1] += 1;
  else list.push([bucket, 1]);
}

const remaining = (ledger, { name, count }) => Math.max(0, count - (ledger[name] ?? []).reduce((sum, [, used]) => sum + used, 0));

/** Seconds until the oldest reservation of a window leaves it. */
function reset_s(ledger, quota, now_ms) {
  const oldest = ledger[quota.name]?.[0];
  return oldest === undefined ? 0 : Math.ceil(((oldest[0] + BUCKETS + 1) * bucket_ms(quota) - now_ms) / 1000);
}

/** The fields of draft-ietf-httpapi-ratelimit-headers. */
export function rateLimitFields(ledger, quotas, now_ms) {
  const policy = quotas.map(({ name, count, window_s }) => `"${name}";q=${count};w=${window_s}`);
  const limit = quotas.map((quota) => `"${quota.name}";r=${remaining(ledger, quota)};t=${reset_s(ledger, quota, now_ms)}`);
  return { 'ratelimit-policy': policy.join(', '), ratelimit: limit.join(', ') };
}

/** The time until every exhausted window has one left. */
export const retryAfter_s = (ledger, quotas, now_ms) =>
  Math.max(1, ...quotas.filter((quota) => remaining(ledger, quota) < 1).map((quota) => reset_s(ledger, quota, now_ms)));

/** Waits until a deployment is ready, by its `GET /health/ready`. */
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from './steps.ts';

export interface Patience {
  /** From the first request to the last. */
  within_ms: number;
  /** Between a response and the next request; default 2000. */
  pause_ms?: number;
  /** For one response; default 15000. */
  timeout_ms?: number;
}

/** The successes in a row that count: a location that does not have the new version yet responds with the one before. */
export const IN_A_ROW = 3;

export interface Outcome {
  ready: boolean;
  /** The last response and each failed check of it, for a person. */
  lines: string[];
}

/** Sends requests until so many in a row have succeeded, or the time is over. */
export async function waitUntilReady(url: string, headers: Record<string, string>, patience: Patience): Promise<Outcome> {
  const { within_ms, pause_ms = 2000, timeout_ms = 15_000 } = patience;
  const deadline_ms = performance.now() + within_ms;
  for (let successes = 0; ; ) {
    const outcome = await requestOnce(url, headers, timeout_ms);
    successes = outcome.ready ? successes + 1 : 0;
    if (successes === IN_A_ROW) return outcome;
    if (performance.now() + pause_ms >= deadline_ms) return { ...outcome, ready: false };
    await sleep(pause_ms);
  }
}

interface Check {
  name: string;
  ok: boolean;
  detail?: string;
  since?: string;
}

async function requestOnce(url: string, headers: Record<string, string>, timeout_ms: number): Promise<Outcome> {
  try {
    const response = await fetch(url, { headers, redirect: 'manual', signal: AbortSignal.timeout(timeout_ms) });
    const checks = readChecks(await response.text());
    const lines = [`GET ${url} responded with ${response.status}${checks === undefined ? ', not as this service does' : ''}`];
    if (response.status === 200 && checks !== undefined) return { ready: true, lines };
    return { ready: false, lines: [...lines, ...(checks ?? []).filter(({ ok }) => !ok).map(describe)] };
  } catch (error) {
    const isLate = error instanceof Error && error.name === 'TimeoutError';
    const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
    return { ready: false, lines: [isLate ? `GET ${url} had no response in time` : `GET ${url} failed: ${messageOf(cause)}`] };
  }
}

/** The rows of a response of `/health/ready`; `undefined` for another one, such as the page of another server. */
function readChecks(body: string): Check[] | undefined {
  try {
    const { checks } = JSON.parse(body) as { checks?: unknown };
    return Array.isArray(checks) ? (checks as Check[]) : undefined;
  } catch {
    return undefined;
  }
}

function describe({ name, detail, since }: Check): string {
  return `${name}: ${detail ?? 'failed'}${since === undefined ? '' : `, since ${since}`}`;
}

/**
 * The URL to check: the requested one, else the service's own (`PUBLIC_URL`), else one of those that wrangler has put the Worker
 * under: a custom domain (`api.example (custom domain)`), `https://….workers.dev`, or a route (`example.com/* (zone name: …)`). A
 * route with a wildcard in its host names no URL, and neither does a schedule.
 */
export function readyUrl(requested: string | undefined, publicUrl: string, targets: string[]): string | undefined {
  const domains = targets.filter((target) => target.includes('(custom domain')).map((target) => `https://${target.split(' ')[0]}`);
  const subdomains = targets.filter((target) => target.startsWith('https://'));
  const routes = targets.filter((target) => /^[^\s:*]+\/\*( \(zone|$)/.test(target)).map((target) => `https://${target.split('/*')[0]}`);
  const base = [requested, publicUrl, ...domains, ...subdomains, ...routes].find((url) => url !== undefined && url !== '');
  return base === undefined ? undefined : `${base.replace(/\/+$/, '')}/health/ready`;
}

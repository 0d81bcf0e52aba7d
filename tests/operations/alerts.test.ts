// The alerts: their heads, their dialect, and their thresholds, each at its border.

import assert from 'node:assert/strict';
import { glob, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ensureClickHouse } from '../../scripts/clickhouse.ts';
import { root } from '../../scripts/paths.ts';
import { type Alert, alertsFolder, readAlerts } from './alert_files.ts';
import { type ClickHouse, startClickHouse, type TimedPoint } from './clickhouse.ts';
import { undocumented, withoutComments } from './sql_dialect.ts';

const read = (file: string) => readFile(join(root, file), 'utf8');

describe('the files of operations/alerts', async () => {
  const alerts = await readAlerts();
  const readme = await read('operations/README.md');
  const runbook = await read('operations/runbook.md').catch(() => undefined);
  const runner = await read('operations/alerts/worker.js');

  it('there are ten alerts, and the runner has each', () => {
    assert.equal(alerts.length, 10);
    assert.deepEqual([...runner.matchAll(/from '\.\/(.+)\.sql'/g)].map(([, name]) => name), alerts.map(({ name }) => name));
  });

  for (const { name, severity, window, threshold, runbook: entry, query } of alerts) {
    describe(name, () => {
      it('uses only documented SQL', () => assert.deepEqual(undocumented(query), []));

      it('returns value, threshold and n, and compares with the threshold of its head', () => {
        const [comparison, number] = threshold.split(' ');
        assert.deepEqual([...query.split(/^FROM/m)[0]?.matchAll(/AS (\w+)/g) ?? []].map(([, alias]) => alias), ['value', 'threshold', 'n']);
        assert.match(query, new RegExp(`^    ${number} AS threshold,$`, 'm'));
        assert.match(query, new RegExp(`HAVING .*\\bvalue ${comparison} ${number}( |$)`, 'm'));
      });

      it('has the window of its head', () => {
        const intervals = [...query.matchAll(/INTERVAL '(\d+)' (\w+)/g)].map(([, count, unit]) => `${count} ${unit?.toLowerCase()}`);
        const stated = [...window.matchAll(/(\d+ (?:minute|hour))s?/g)].map(([, one]) => one);
        assert.deepEqual([...new Set(intervals)].sort(), [...new Set(stated)].sort());
      });

      it('has a severity, and its row in the table of operations/README.md', () => {
        assert.ok(['page', 'ticket'].includes(severity), severity);
        const row = new RegExp(`^\\| \`${name}\` \\| .+ \\| ${threshold} \\| ${window} \\| ${severity} \\|$`, 'm');
        assert.match(readme, row);
      });

      it('names its entry of the runbook', () => {
        assert.equal(entry, `runbook.md#${name}`);
        // The entry's heading is the name, of which GitHub makes the anchor.
        if (runbook !== undefined) assert.match(runbook, new RegExp(`^#+ \`?${name}\`?$|<a (?:id|name)="${name}">`, 'm'));
      });
    });
  }
});

it('the queries of the documents use only documented SQL', async () => {
  const documents = (await readdir(join(root, 'operations'))).filter((file) => file.endsWith('.md'));
  for (const document of documents) {
    for (const [, query = ''] of (await read(`operations/${document}`)).matchAll(/^```sql\n([\s\S]+?)```$/gm)) {
      assert.deepEqual(undocumented(withoutComments(query)), [], `${document}: ${query}`);
    }
  }
});

describe('the check of the dialect', () => {
  for (const [query, finding] of [
    ['SELECT 1 AS a FROM ai_sessions UNION SELECT 2 AS a FROM ai_sessions', 'word UNION'],
    ['SELECT count() AS a FROM ai_sessions JOIN ai_sessions ON blob1 = blob2', 'word JOIN'],
    ['SELECT count() AS a FROM ai_sessions, ai_sessions', 'a second table'],
    ['SELECT count() AS a FROM other', 'table other'],
    ['WITH a AS (SELECT 1) SELECT 1 AS b FROM ai_sessions', 'word WITH'],
    ["SELECT CASE WHEN blob1 = 'a' THEN 1 END AS a FROM ai_sessions", 'word CASE'],
    ['SELECT quantile(0.95)(double1) AS a FROM ai_sessions', 'function quantile'],
    ['SELECT uniq(blob1) AS a FROM ai_sessions', 'function uniq'],
    ['SELECT sum(double21) AS a FROM ai_sessions', 'word double21'],
    ['SELECT DISTINCT blob1 FROM ai_sessions', 'word DISTINCT'],
    ['SELECT sum(double1) OVER () AS a FROM ai_sessions', 'function OVER'],
    ["SELECT blob1 || 'a' AS a FROM ai_sessions", 'operator |'],
    ["SELECT 1 AS a FROM ai_sessions WHERE timestamp > NOW() - INTERVAL '1' WEEK", 'word WEEK'],
    ['SELECT 1 AS a FROM ai_sessions SETTINGS max_threads = 1', 'word SETTINGS'],
  ] as const) {
    it(`it finds ${finding}`, () => assert.ok(undocumented(query).includes(finding), undocumented(query).join(', ')));
  }
});

describe('the alerts at their borders', () => {
  const NOW_S = 1_795_867_200;
  let clickhouse: ClickHouse;
  let alerts: Map<string, Alert>;
  before(async () => {
    await ensureClickHouse();
    clickhouse = await startClickHouse();
    alerts = new Map((await readAlerts()).map((alert) => [alert.name, alert]));
  });
  after(() => clickhouse.close());

  /** A number of equal points at one time, or spread over the minutes before now. */
  type Points = { count: number; minutes?: number; ago_minutes?: number } & Omit<TimedPoint, 'time_s'>;
  const points = (all: Points[]): TimedPoint[] =>
    all.flatMap(({ count, minutes = 1, ago_minutes = 0, ...point }) =>
      Array.from({ length: count }, (_, n) => ({ ...point, time_s: NOW_S - ago_minutes * 60 - ((n + 0.5) / count) * minutes * 60 })),
    );
  const fires = async (name: string, all: Points[]) => {
    await clickhouse.load(points(all));
    return clickhouse.query(alerts.get(name)?.query ?? '', NOW_S);
  };

  type Generation = { outcome?: string; cost?: number; candidates?: number; dropped?: number; too_many?: number; first_ms?: number; persisted?: number };
  const generation = ({ outcome = 'completed', cost = 0, candidates = 0, dropped = 0, too_many = 0, first_ms = 0, persisted = 1 }: Generation = {}) => ({
    blobs: ['generation', outcome, 'test/first', 'test/first', ''],
    doubles: [1, 0, 0, cost, candidates, dropped + too_many, dropped, 0, 0, 0, too_many, 0, first_ms, 0, 0, persisted],
  });
  const request = (status: number, { method = 'GET', code = '', attempts = 0, route = '/ai-sessions' } = {}) => ({ blobs: [route, method, code, ''], doubles: [status, 1, 0, 0, 0, attempts] });
  const job = (name: string, reason: string, age_ms = 0) => ({ blobs: ['job', name, reason], doubles: [1, age_ms] });
  const failed = generation({ outcome: 'ai_unavailable' });

  /** Each: the alert, the most that does not fire, the least that fires. */
  const borders: [name: string, what: string, quiet: Points[], firing: Points[]][] = [
    ['availability-fast-burn', '7.2 % of the hour', [{ count: 72, minutes: 60, ...failed }, { count: 928, minutes: 60, ...generation() }], [{ count: 73, minutes: 60, ...failed }, { count: 927, minutes: 60, ...generation() }]],
    ['availability-fast-burn', '20 events', [{ count: 19, minutes: 60, ...failed }], [{ count: 20, minutes: 60, ...failed }]],
    ['availability-fast-burn', 'an end 5 minutes ago', [{ count: 40, minutes: 40, ago_minutes: 6, ...failed }, { count: 4, minutes: 5, ...generation() }], [{ count: 40, minutes: 40, ago_minutes: 4, ...failed }, { count: 4, minutes: 5, ...generation() }]],
    ['availability-slow-burn', '3 % of six hours', [{ count: 30, minutes: 360, ...failed }, { count: 970, minutes: 360, ...generation() }], [{ count: 31, minutes: 360, ...failed }, { count: 969, minutes: 360, ...generation() }]],
    ['availability-fast-burn', 'refusals and stops do not count', [{ count: 20, ...generation({ outcome: 'ai_refused' }) }, { count: 20, ...generation({ outcome: 'cancelled' }) }], [{ count: 20, ...generation({ outcome: 'database_error' }) }]],
    ['availability-fast-burn', 'errors of callers do not count', [{ count: 40, ...request(404, { code: 'not_found' }) }, { count: 40, ...request(429, { code: 'rate_limited' }) }, { count: 40, ...request(400, { method: 'POST', code: 'validation_failed' }) }], [{ count: 20, ...request(500, { code: 'database_error' }) }]],
    ['availability-fast-burn', 'a request with a generation counts once', [{ count: 20, ...request(500, { method: 'POST', code: 'ai_unavailable', attempts: 3 }) }], [{ count: 20, ...request(500, { method: 'POST', code: 'rate_limiter_unavailable' }) }]],
    ['availability-fast-burn', 'other routes do not count', [{ count: 20, ...request(500, { route: '/health/ready' }) }], [{ count: 20, ...request(500, { route: '/ai-sessions/{id}' }) }]],
    ['availability-fast-burn', 'an end that is not persisted is a failure', [{ count: 20, ...generation() }], [{ count: 20, ...generation({ persisted: 0 }) }]],
    ['ai-misconfigured', 'one generation', [{ count: 90, ...failed }], [{ count: 1, ...generation({ outcome: 'ai_misconfigured' }) }, { count: 90, ...generation() }]],
    ['ai-misconfigured', '15 minutes', [{ count: 1, ago_minutes: 15, ...generation({ outcome: 'ai_misconfigured' }) }], [{ count: 1, ago_minutes: 13, ...generation({ outcome: 'ai_misconfigured' }) }]],
    ['not-persisted', 'three generations', [{ count: 2, ...generation({ persisted: 0 }) }], [{ count: 3, ...generation({ persisted: 0 }) }]],
    ['not-persisted', 'one abandoned', [{ count: 9, ...job('persist', 'unavailable') }], [{ count: 1, ...job('persist', 'abandoned') }]],
    ['dollars-per-hour', '5 dollars', [{ count: 10, minutes: 50, ...generation({ cost: 0.5 }) }], [{ count: 11, minutes: 50, ...generation({ cost: 0.5 }) }]],
    ['rate-limited-share', 'a fifth', [{ count: 20, ...request(429) }, { count: 80, ...request(200) }], [{ count: 21, ...request(429) }, { count: 79, ...request(200) }]],
    ['rate-limited-share', '20 requests', [{ count: 19, ...request(429) }], [{ count: 20, ...request(429) }]],
    ['first-candidate-p95', '8 s', [{ count: 20, ...generation({ first_ms: 8000 }) }], [{ count: 20, ...generation({ first_ms: 8001 }) }]],
    ['first-candidate-p95', 'one in twenty', [{ count: 5, ...generation({ first_ms: 9000 }) }, { count: 95, ...generation({ first_ms: 900 }) }], [{ count: 6, ...generation({ first_ms: 9000 }) }, { count: 94, ...generation({ first_ms: 900 }) }]],
    ['first-candidate-p95', 'generations without a candidate do not count', [{ count: 19, ...generation({ first_ms: 9000 }) }, { count: 90, ...failed }], [{ count: 20, ...generation({ first_ms: 9000 }) }, { count: 90, ...failed }]],
    ['dropped-candidates-share', '30 %', [{ count: 20, ...generation({ candidates: 7, dropped: 3 }) }], [{ count: 20, ...generation({ candidates: 69, dropped: 31 }) }]],
    ['dropped-candidates-share', '100 candidates', [{ count: 9, ...generation({ dropped: 11 }) }], [{ count: 10, ...generation({ dropped: 10 }) }]],
    ['dropped-candidates-share', 'too many candidates are no fault', [{ count: 20, ...generation({ candidates: 10, too_many: 30 }) }], [{ count: 20, ...generation({ candidates: 10, dropped: 30 }) }]],
    ['signing-keys-stale', 'three refreshes of keys over 10 minutes old', [{ count: 2, ...job('signing_keys', 'unavailable', 700_000) }, { count: 9, ...job('signing_keys', 'unavailable', 600_000) }], [{ count: 3, ...job('signing_keys', 'unavailable', 600_001) }]],
    ['signing-keys-stale', 'three requests without keys', [{ count: 2, ...request(500, { code: 'auth_unavailable' }) }], [{ count: 3, ...request(500, { code: 'auth_unavailable' }) }]],
    ['no-traffic', 'one request', [{ count: 1, ago_minutes: 58, ...request(200) }], [{ count: 1, ago_minutes: 60, ...request(200) }, { count: 99, ...request(200, { route: '/health' }) }]],
  ];
  for (const [name, what, quiet, firing] of borders) {
    it(`${name}: ${what}`, async () => {
      assert.deepEqual(await fires(name, quiet), []);
      const rows = await fires(name, firing);
      assert.equal(rows.length, 1);
      assert.deepEqual(Object.keys(rows[0] ?? {}), ['value', 'threshold', 'n']);
    });
  }

  it('a sampled point counts as all that it stands for', async () => {
    const sampled = (sample_interval: number) => fires('dollars-per-hour', [{ count: 1, sample_interval, ...generation({ cost: 0.5 }) }]);
    assert.deepEqual(await sampled(10), []);
    assert.deepEqual(await sampled(11), [{ value: 5.5, threshold: 5, n: '11' }]);
    const slow = (sample_interval: number) => fires('first-candidate-p95', [{ count: 95, ...generation({ first_ms: 900 }) }, { count: 1, sample_interval, ...generation({ first_ms: 9000 }) }]);
    assert.deepEqual(await slow(5), []);
    assert.deepEqual(await slow(6), [{ value: 9000, threshold: 8000, n: '101' }]);
  });

  it('no alert but no-traffic fires without any point', async () => {
    await clickhouse.load([]);
    const firing: string[] = [];
    for (const { name, query } of alerts.values()) if ((await clickhouse.query(query, NOW_S)).length > 0) firing.push(name);
    assert.deepEqual(firing, ['no-traffic']);
  });
});

it('every SQL file of operations is an alert', async () => {
  const files: string[] = [];
  for await (const file of glob('operations/**/*.sql', { cwd: root })) files.push(join(root, file));
  assert.deepEqual(files.sort(), (await readAlerts()).map(({ name }) => join(alertsFolder, `${name}.sql`)));
});

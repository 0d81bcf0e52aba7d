// The scheduled Worker of the alerts, as wrangler bundles it, in workerd: with a SQL API that runs the queries here, and a webhook.

import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { Miniflare, type Request, Response } from 'miniflare';
import { root } from '../../scripts/paths.ts';
import { ensureClickHouse } from '../../scripts/clickhouse.ts';
import { wrangler } from '../../scripts/wrangler.ts';
import { alertsFolder, readAlerts } from './alert_files.ts';
import { type ClickHouse, startClickHouse, type TimedPoint } from './clickhouse.ts';
import { undocumented } from './sql_dialect.ts';

const NOW_S = 1_795_867_200;
const ACCOUNT_ID = 'a'.repeat(32);
const TOKEN = 'the-analytics-token';
const WEBHOOK = 'https://hooks.example/alerts';

type Message = { text: string; firing: { alert: string; severity: string; runbook: string; value?: number; threshold: string; n?: number; error?: string }[]; resolved: string[] };

let clickhouse: ClickHouse;
let runner: Miniflare;
let bundle: string;
const queries: string[] = [];
const messages: Message[] = [];
/** The status of the SQL API and of the webhook. */
const upstream = { sql: 200, webhook: 200 };

before(async () => {
  await ensureClickHouse();
  clickhouse = await startClickHouse();
  bundle = await mkdtemp(join(tmpdir(), 'ai-sessions-alerts-'));
  const { ok, output } = await wrangler(['deploy', '--dry-run', '--config', join(alertsFolder, 'wrangler.toml'), '--outdir', bundle]);
  assert.ok(ok, output);
  runner = new Miniflare({
    modules: ['worker.js', ...(await readdir(bundle)).filter((file) => file.endsWith('.sql'))].map((file) => ({
      type: file === 'worker.js' ? 'ESModule' : 'Text',
      path: join(bundle, file),
    })),
    modulesRoot: bundle,
    compatibilityDate: /compatibility_date = "(.+)"/.exec(await readFile(join(alertsFolder, 'wrangler.toml'), 'utf8'))?.[1] ?? '',
    bindings: { ACCOUNT_ID, ANALYTICS_TOKEN: TOKEN, WEBHOOK_URL: WEBHOOK },
    kvNamespaces: ['FIRING'],
    async outboundService(request: Request) {
      if (request.url === WEBHOOK) {
        if (upstream.webhook === 200) messages.push((await request.json()) as Message);
        return new Response(null, { status: upstream.webhook });
      }
      assert.equal(request.url, `https://api.cloudflare.com/client/v4/accounts/${ACCOUNT_ID}/analytics_engine/sql`);
      assert.equal(request.method, 'POST');
      assert.equal(request.headers.get('authorization'), `Bearer ${TOKEN}`);
      const query = await request.text();
      queries.push(query);
      if (upstream.sql !== 200) return new Response('no', { status: upstream.sql });
      const data = await clickhouse.query(query, NOW_S);
      return Response.json({ meta: [], data, rows: data.length });
    },
  });
  await runner.ready;
});
after(async () => {
  await runner?.dispose();
  await clickhouse?.close();
  await rm(bundle, { recursive: true, force: true });
});

const request: TimedPoint = { time_s: NOW_S - 60, blobs: ['/ai-sessions', 'GET'], doubles: [200] };
const misconfigured: TimedPoint = { time_s: NOW_S - 60, blobs: ['generation', 'ai_misconfigured'], doubles: [1] };

/** One run with these points. Returns the outcome, and the messages that the webhook received. */
async function runWith(points: TimedPoint[]): Promise<{ outcome: string; sent: Message[] }> {
  await clickhouse.load(points);
  messages.length = 0;
  const worker = (await runner.getWorker()) as unknown as { scheduled(event: { cron: string }): Promise<{ outcome: string }> };
  const { outcome } = await worker.scheduled({ cron: '*/5 * * * *' });
  return { outcome, sent: [...messages] };
}

it('a run sends each alert as documented SQL, without comments', async () => {
  queries.length = 0;
  assert.deepEqual(await runWith([request]), { outcome: 'ok', sent: [] });
  assert.deepEqual(queries.map((query) => query.trim()).sort(), (await readAlerts()).map(({ query }) => query).sort());
  assert.deepEqual(queries.flatMap(undocumented), []);
});

it('an alert is sent when it begins and when it ends, not between', async () => {
  const first = await runWith([request, misconfigured]);
  const [message] = first.sent;
  assert.deepEqual(message?.firing.map(({ alert, severity, runbook, value, threshold, n }) => ({ alert, severity, runbook, value, threshold, n })), [
    { alert: 'ai-misconfigured', severity: 'page', runbook: 'runbook.md#ai-misconfigured', value: 1, threshold: '>= 1', n: 1 },
  ]);
  assert.match(message?.text ?? '', /^page: ai-misconfigured: 1 \(>= 1\), n = 1, runbook\.md#ai-misconfigured$/);
  assert.deepEqual((await runWith([request, misconfigured])).sent, []);
  const last = await runWith([request]);
  assert.deepEqual(last.sent.map(({ firing, resolved }) => ({ firing, resolved })), [{ firing: [], resolved: ['ai-misconfigured'] }]);
  assert.deepEqual((await runWith([request])).sent, []);
});

it('a webhook that fails is sent again at the next run', async () => {
  upstream.webhook = 500;
  assert.notEqual((await runWith([])).outcome, 'ok');
  upstream.webhook = 200;
  assert.deepEqual((await runWith([])).sent.map(({ firing }) => firing.map(({ alert }) => alert)), [['no-traffic']]);
  assert.deepEqual((await runWith([request])).sent.map(({ resolved }) => resolved), [['no-traffic']]);
});

it('alerts that cannot be evaluated are sent as such, and keep their state', async () => {
  await runWith([request, misconfigured]);
  upstream.sql = 403;
  const { sent } = await runWith([request]);
  upstream.sql = 200;
  assert.equal(sent.length, 1);
  const names = sent[0]?.firing.map(({ alert }) => alert) ?? [];
  assert.equal(names.length, 10);
  assert.ok(names.includes('ai-misconfigured') && names.includes('no-traffic-not-evaluated'), names.join());
  assert.deepEqual(sent[0]?.resolved, []);
  assert.match(sent[0]?.firing[0]?.error ?? '', /403/);
  const after = await runWith([request]);
  assert.equal(after.sent[0]?.resolved.length, 10);
});

it('neither the token nor the webhook is in a file', async () => {
  for (const file of ['worker.js', 'wrangler.toml']) assert.doesNotMatch(await readFile(join(root, 'operations/alerts', file), 'utf8'), /(TOKEN|WEBHOOK_URL) *= *"[^"]/);
});

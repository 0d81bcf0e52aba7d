// operations/dashboard.json: Grafana's published types, the dialect of its queries, its layout.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { npmPackage, root } from '../../scripts/paths.ts';
import { run } from '../../scripts/run_program.ts';
import { dashboardFile, expanded, readPanels } from './panels.ts';
import { undocumented } from './sql_dialect.ts';

describe("Grafana's schema of dashboards", () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ai-sessions-dashboard-'));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  /** The compiler's findings about a dashboard, as a literal of the published type. */
  async function findings(dashboard: string): Promise<string> {
    const file = join(folder, 'dashboard.ts');
    const type = join(root, 'tests/operations/dashboard_types.ts');
    await writeFile(file, `import type { DashboardInJson } from '${type}';\nexport const dashboard: DashboardInJson = ${dashboard};\n`);
    const settings = ['--ignoreConfig', '--noEmit', '--strict', '--skipLibCheck', '--target', 'es2024', '--module', 'nodenext', '--allowImportingTsExtensions', '--types', ''];
    return (await run(process.execPath, [npmPackage('typescript', 'bin/tsc'), ...settings, file])).stdout;
  }

  it('the dashboard has the published types', async () => assert.equal(await findings(await readFile(dashboardFile, 'utf8')), ''));

  for (const [what, right, wrong] of [
    ['an unknown member', '"refresh": "1m"', '"refreshed": "1m"'],
    ['an unknown member of a panel', '"drawStyle": "line"', '"drawnStyle": "line"'],
    ['a word that an enum lacks', '"graphMode": "none"', '"graphMode": "all"'],
    ['a text in place of a number', '"schemaVersion": 41', '"schemaVersion": "41"'],
    ['an unknown format of a query', '"format": "table"', '"format": "tables"'],
  ] as const) {
    it(`${what} is found`, async () => {
      const dashboard = await readFile(dashboardFile, 'utf8');
      assert.ok(dashboard.includes(right));
      assert.match(await findings(dashboard.replace(right, wrong)), /error TS/);
    });
  }
});

describe('the panels', async () => {
  const panels = await readPanels();

  it('every query uses only documented SQL', () => {
    const queries = panels.flatMap(({ targets }) => targets.map(({ query }) => expanded(query, 1, 2)));
    assert.ok(queries.length >= panels.length);
    assert.deepEqual(queries.map(undocumented).flat(), []);
  });

  it('ids are unique, and no panel covers another', () => {
    assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
    const cells = panels.flatMap(({ gridPos }) => {
      assert.ok(gridPos !== undefined && gridPos.x + gridPos.w <= 24);
      return Array.from({ length: gridPos.w * gridPos.h }, (_, n) => `${gridPos.x + (n % gridPos.w)},${gridPos.y + Math.floor(n / gridPos.w)}`);
    });
    assert.equal(new Set(cells).size, cells.length);
  });

  it('time series are grouped by the time of the point', () => {
    for (const { type, targets } of panels) {
      if (type === 'timeseries') for (const { query } of targets) assert.match(query, /^SELECT .+ AS t, [\s\S]+GROUP BY t.*\nORDER BY t$/);
    }
  });

  it('the dashboard shows what operators need', () => {
    for (const title of ['Requests by outcome', 'Latency by stage, p95', 'Dollars by model', 'Dollars per day', 'Candidates offered and dropped', 'Limits reached', 'Health of each dependency']) {
      assert.ok(panels.some((panel) => panel.title === title), title);
    }
  });
});

// A short `npm run test:operations`: every incident fires exactly the alerts of its row, and every panel has figures of the run.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ensureClickHouse } from '../../scripts/clickhouse.ts';
import { readAlerts } from './alert_files.ts';
import { type ClickHouse, startClickHouse } from './clickhouse.ts';
import { CLEAN, INCIDENTS } from './incidents.ts';
import { expanded, readPanels } from './panels.ts';
import { incidentTable, NOW_S, playIncidents, reportOf, type Run } from './play_incidents.ts';

/** Percentiles need 20 generations. */
const LEARNERS = 24;

let run: Run;
before(async () => {
  await ensureClickHouse();
  run = await playIncidents(LEARNERS);
  console.log(reportOf(run.played));
});

describe('an incident fires exactly the alerts of its row', async () => {
  const names = [CLEAN, ...INCIDENTS].map(({ name }) => name);
  for (const name of names) {
    it(name, () => {
      const played = run.played.find(({ incident }) => incident === name);
      assert.deepEqual(played?.fired, played?.expected);
    });
  }

  it('each row of the table is played, and each alert has an incident', async () => {
    const table = await incidentTable();
    assert.deepEqual([...table.keys()].sort(), names.toSorted());
    assert.deepEqual([...new Set([...table.values()].flat())].sort(), (await readAlerts()).map(({ name }) => name));
  });

  it('an alert follows its incident within 20 minutes, no traffic within its hour', () => {
    for (const { incident, minutes = 0 } of run.played) assert.ok(minutes >= 0 && minutes <= (incident === 'no traffic' ? 60 : 20), `${incident}: ${minutes}`);
  });
});

describe('the panels of the dashboard', async () => {
  let clickhouse: ClickHouse;
  before(async () => {
    clickhouse = await startClickHouse();
    await clickhouse.load(run.played.flatMap(({ points }) => points));
  });
  after(() => clickhouse.close());

  for (const { title, targets } of await readPanels()) {
    it(`the panel "${title}" has figures`, async () => {
      for (const { query } of targets) {
        const rows = await clickhouse.query(expanded(query, NOW_S - 6 * 3600, NOW_S), NOW_S);
        assert.ok(rows.length > 0, query);
        const figures = rows.flatMap(({ t, ...row }) => Object.values(row)).filter((value) => Number(value) > 0);
        assert.ok(figures.length > 0, query);
      }
    });
  }
});

it('no point has a secret or a text of a user', () => {
  const texts = new Set(run.played.flatMap(({ points }) => points.flatMap(({ blobs }) => blobs)));
  // Routes, methods, codes, models, the stand-in's provider: nothing else, so no token, key, id or text.
  const unexpected = [...texts].filter((text) => !/^(|\/[a-z{}/.-]*|[A-Z]{3,7}|[a-z_]+|test\/(first|second)|Stand-in)$/.test(text));
  assert.deepEqual(unexpected, []);
});

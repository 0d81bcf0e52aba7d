/**
 * `npm run test:operations`: plays the incidents of operations/README.md against the Worker on this machine, and fails when one
 * fires other alerts than its row names. `--learners 80` plays more traffic (default 40), `--picture` draws the dashboard of the run
 * into operations/dashboard.png.
 */
import { parseArgs } from 'node:util';
import { playIncidents, reportOf } from '../tests/operations/play_incidents.ts';
import { build } from './build.ts';
import { ensureClickHouse } from './clickhouse.ts';
import { drawDashboard } from './dashboard_picture.ts';
import { Failure, runScript, step } from './steps.ts';

/** Percentiles need 20 generations. */
const LEARNERS_MIN = 24;

await runScript(async () => {
  const { values } = parseArgs({ options: { learners: { type: 'string', default: '40' }, picture: { type: 'boolean', default: false } } });
  const learners = Number(values.learners);
  if (!Number.isInteger(learners) || learners < LEARNERS_MIN) throw new Failure(`--learners takes a whole number from ${LEARNERS_MIN} on, not "${values.learners}".`);
  await ensureClickHouse();
  await build();
  const { played } = await step(`playing the incidents with ${learners} learners`, () => playIncidents(learners));
  console.log(reportOf(played));
  if (values.picture) await step('drawing operations/dashboard.png', () => drawDashboard(played));
  const wrong = played.filter(({ expected, fired }) => expected.join() !== fired.join());
  if (wrong.length > 0) throw new Failure(`${wrong.map(({ incident }) => incident).join(', ')}: other alerts than operations/README.md names.`);
});

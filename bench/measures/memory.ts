/** Measures the resident memory of a worker after its start, and its growth under load: of known users, and of new ones. */
import { randomUUID } from 'node:crypto';
import { inTurns } from '../traffic.ts';
import type { Bench, Contender, Measure } from '../bench.ts';
import { send } from '../client.ts';
import { load } from '../load.ts';
import { residentMb } from '../processes.ts';
import { startTarget } from '../targets.ts';

const THOUSAND = 1000;

export const memory: Measure = {
  name: 'memory',
  title: 'memory',
  when: 'once',
  async run(bench) {
    await bench.upstream.set();
    for (const contender of bench.contenders) await measureGrowth(bench, contender);
  },
};

/** In one process for both, since the known users' growth is over when the new ones follow. */
async function measureGrowth({ upstream, traffic, figures, quick }: Bench, contender: Contender): Promise<void> {
  const { name } = contender;
  const thousands = quick ? 1 : 3;
  const target = await startTarget(contender, upstream.url);
  const work = 'resident memory';
  try {
    await send(target.url, traffic.health());
    const atStart_mb = await residentMb(target.pid);
    figures.add({ work, figure: 'at start', unit: 'MB' }, name, atStart_mb);
    const grow = async (users: string[]) => {
      const before_mb = await residentMb(target.pid);
      await load(target, upstream, inTurns(users, THOUSAND, traffic.plain), 16, ({ status }) => status === 201);
      return (await residentMb(target.pid)) - before_mb;
    };
    const first_mb = await grow(traffic.users);
    const known = { work, figure: 'first 1000 generations, known users', unit: 'MB' };
    figures.add({ ...known, goal: { over: 'floor', at: 1.15, is: 'at most' } }, name, first_mb);
    for (let thousand = 1; thousand < thousands; thousand += 1) {
      figures.add({ work, figure: 'each later 1000, known users', unit: 'MB' }, name, await grow(traffic.users));
    }
    const created = await grow(Array.from({ length: THOUSAND }, () => randomUUID()));
    const fresh = { work, figure: '1000 generations, a new user each', unit: 'MB' };
    figures.add({ ...fresh, goal: { over: 'floor', at: 1.1, is: 'at most' } }, name, created);
  } finally {
    await target.close();
  }
}

/** Measures the resident memory of a worker after its start, and its growth under load. */
import { inTurns } from '../traffic.ts';
import type { Measure } from '../bench.ts';
import { send } from '../client.ts';
import { load } from '../load.ts';
import { residentMb } from '../processes.ts';
import { startTarget } from '../targets.ts';

export const memory: Measure = {
  name: 'memory',
  title: 'memory',
  when: 'once',
  async run({ upstream, traffic, figures, contenders, quick }) {
    const thousands = quick ? 1 : 5;
    await upstream.set();
    for (const contender of contenders) {
      const { name } = contender;
      const target = await startTarget(contender, upstream.url);
      try {
        await send(target.url, traffic.health());
        const atStart_mb = await residentMb(target.pid);
        figures.add({ work: 'resident memory', figure: 'at start', unit: 'MB' }, name, atStart_mb);
        for (let thousand = 0; thousand < thousands; thousand += 1) {
          const requests = inTurns(traffic.users, 1000, traffic.plain);
          await load(target, upstream, requests, 16, ({ status }) => status === 201);
        }
        const gained_mb = (await residentMb(target.pid)) - atStart_mb;
        const head = { work: 'resident memory', figure: `growth a 1000 generations, over ${thousands * 1000}`, unit: 'MB' };
        figures.add({ ...head, goal: { over: 'floor', at: 1, is: 'at most' } }, name, gained_mb / thousands);
      } finally {
        await target.close();
      }
    }
  },
};

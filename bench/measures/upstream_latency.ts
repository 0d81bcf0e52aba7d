/** Measures the time of a generation with realistic upstream delays. */
import { inTurns } from '../traffic.ts';
import { inTurn, type Measure } from '../bench.ts';
import { quantile } from '../figures.ts';
import { load } from '../load.ts';

export const upstreamLatency: Measure = {
  name: 'latency',
  title: 'plain generation, database 20 ms, model 100 ms',
  when: 'each round',
  async run({ upstream, traffic, figures, contenders, quick }, round) {
    await upstream.set({ database_delay_ms: 20, model_delay_ms: 100 });
    for (const { name, target } of inTurn(contenders, round)) {
      const requests = inTurns(traffic.users, quick ? 8 : 16, traffic.plain);
      const { latencies_ms } = await load(target, upstream, requests, 1, ({ status }) => status === 201);
      const head = { work: 'plain generation, 8 cards, database 20 ms, model 100 ms', figure: 'p50, one at a time', unit: 'ms' };
      figures.add({ ...head, goal: { over: 'peer', at: 0.68, is: 'at most' } }, name, quantile(latencies_ms, 0.5));
    }
  },
};

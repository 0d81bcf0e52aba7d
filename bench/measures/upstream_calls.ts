/** Counts the upstream requests of a generation, and the connections that are opened for it. */
import { inTurns } from '../traffic.ts';
import type { Measure } from '../bench.ts';
import { load } from '../load.ts';

const GENERATIONS = 50;

export const upstreamCalls: Measure = {
  name: 'calls',
  title: 'upstream calls of a generation',
  when: 'once',
  async run({ upstream, traffic, figures, contenders }) {
    await upstream.set();
    for (const { name, target } of contenders) {
      await upstream.log();
      const requests = inTurns(traffic.users, GENERATIONS, traffic.plain);
      await load(target, upstream, requests, 1, ({ status }) => status === 201);
      const { calls, connections } = await upstream.log();
      const total = Object.values(calls).reduce((sum, count) => sum + count, 0);
      figures.add({ work: 'plain generation, 8 cards', figure: 'upstream calls', unit: '' }, name, total / GENERATIONS);
      figures.add({ work: 'plain generation, 8 cards', figure: 'upstream connections opened', unit: '' }, name, connections / GENERATIONS);
    }
  },
};

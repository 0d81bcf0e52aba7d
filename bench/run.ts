/** One run: starts everything once, then runs every measure in every round, and every target in every measure. */
import { step } from '../scripts/steps.ts';
import { createTraffic } from './traffic.ts';
import { type Bench, CONTENDERS, type Measure } from './bench.ts';
import { checkAll } from './check.ts';
import { Figures } from './figures.ts';
import { closingByte } from './measures/closing_byte.ts';
import { coldStart } from './measures/cold_start.ts';
import { memory } from './measures/memory.ts';
import { upstreamLatency } from './measures/upstream_latency.ts';
import { requests } from './measures/requests.ts';
import { scriptSize } from './measures/script_size.ts';
import { upstreamCalls } from './measures/upstream_calls.ts';
import { startTarget, TARGETS } from './targets.ts';
import { startUpstream, type Upstream } from './upstream.ts';

const measures: Measure[] = [...requests, closingByte, upstreamLatency, coldStart, scriptSize, memory, upstreamCalls];

export async function runAll(rounds: number, quick: boolean): Promise<Figures> {
  let upstream: Upstream | undefined;
  const traffic = await createTraffic(() => `${upstream?.url}/auth/v1`);
  upstream = await startUpstream(traffic.keySet);
  const closers: (() => Promise<void>)[] = [upstream.close];
  try {
    const start = async (...args: Parameters<typeof startTarget>) => {
      const target = await startTarget(...args);
      closers.unshift(target.close);
      return target;
    };
    const url = upstream.url;
    const all = async <N extends Parameters<typeof startTarget>[0]>(names: readonly N[], limit?: number) => {
      const entries: [N, Awaited<ReturnType<typeof startTarget>>][] = [];
      for (const name of names) entries.push([name, await start(name, url, limit)]);
      return Object.fromEntries(entries) as Record<N, Awaited<ReturnType<typeof startTarget>>>;
    };
    const targets = await step('starting the targets', () => all(TARGETS));
    const limited = await all(CONTENDERS, 1);
    const bench: Bench = { upstream, traffic, figures: new Figures(), quick, targets, limited };
    await step('checking their responses and rows', () => checkAll(bench));
    for (let round = 0; round < rounds; round += 1) {
      await step(`round ${round + 1} of ${rounds}`, async () => {
        for (const measure of measures) if (measure.when === 'each round') await measure.run(bench, round);
      });
    }
    for (const measure of measures) if (measure.when === 'once') await step(measure.title, () => measure.run(bench, 0));
    return bench.figures;
  } finally {
    for (const close of closers) await close();
  }
}

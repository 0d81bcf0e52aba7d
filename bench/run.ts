/** One run: starts everything once, then runs every measure in every round, and every target in every measure. */
import { step } from '../scripts/steps.ts';
import { createTraffic } from './traffic.ts';
import { type Bench, CONTENDERS, type Measure } from './bench.ts';
import { checkFunctions, checkWorkers } from './check.ts';
import { Figures } from './figures.ts';
import { type FunctionName, FUNCTIONS, startFunction } from './edge_functions.ts';
import { closingByte } from './measures/closing_byte.ts';
import { coldStart } from './measures/cold_start.ts';
import { edgeFunctions } from './measures/edge_functions.ts';
import { memory } from './measures/memory.ts';
import { upstreamLatency } from './measures/upstream_latency.ts';
import { requests } from './measures/requests.ts';
import { scriptSize } from './measures/script_size.ts';
import { upstreamCalls } from './measures/upstream_calls.ts';
import { startTarget, type Target, type TargetName, TARGETS } from './targets.ts';
import { startUpstream, type Upstream } from './upstream.ts';

const onCloudflare: Measure[] = [...requests, closingByte, upstreamLatency, coldStart, scriptSize, memory, upstreamCalls];

export type Host = 'cloudflare' | 'supabase';

/** The measures of these hosts. */
export async function runAll(rounds: number, quick: boolean, hosts: readonly Host[]): Promise<Figures> {
  const [hasWorkers, hasFunctions] = [hosts.includes('cloudflare'), hosts.includes('supabase')];
  const measures = [...(hasWorkers ? onCloudflare : []), ...(hasFunctions ? edgeFunctions : [])];
  let upstream: Upstream | undefined;
  const traffic = await createTraffic(() => `${upstream?.url}/auth/v1`);
  upstream = await startUpstream(traffic.keySet);
  const closers: (() => Promise<void>)[] = [upstream.close];
  try {
    const { url } = upstream;
    const all = async <N extends string>(names: readonly N[], start: (name: N) => Promise<Target>) => {
      const entries: [N, Target][] = [];
      for (const name of names) {
        const target = await start(name);
        closers.unshift(target.close);
        entries.push([name, target]);
      }
      return Object.fromEntries(entries) as Record<N, Target>;
    };
    const bench = await step('starting the targets', async (): Promise<Bench> => {
      const started = upstream as Upstream;
      const worker = (limit?: number) => (name: TargetName) => startTarget(name, url, limit);
      const edgeFunction = (limit?: number) => (name: FunctionName) => startFunction(name, started, limit);
      return {
        upstream: started,
        traffic,
        figures: new Figures(),
        quick,
        targets: await all(hasWorkers ? TARGETS : [], worker()),
        limited: await all(hasWorkers ? CONTENDERS : [], worker(1)),
        functions: await all(hasFunctions ? FUNCTIONS : [], edgeFunction()),
        limitedFunctions: await all(hasFunctions ? FUNCTIONS : [], edgeFunction(1)),
      };
    });
    await step('checking their responses and rows', async () => {
      if (hasWorkers) await checkWorkers(bench);
      if (hasFunctions) await checkFunctions(bench);
    });
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

/** One run: starts everything once, then runs every measure in every round, and every target in every measure. */
import { step } from '../scripts/steps.ts';
import { createTraffic } from './traffic.ts';
import type { Bench, Contender, Measure } from './bench.ts';
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
import { definitionsWith, type OtherBuild, startTarget, type Target } from './targets.ts';
import { startUpstream, type Upstream } from './upstream.ts';

const onCloudflare: Measure[] = [...requests, closingByte, upstreamLatency, coldStart, scriptSize, memory, upstreamCalls];

const measuresOn = { cloudflare: onCloudflare, supabase: edgeFunctions };
export type Host = keyof typeof measuresOn;

export type RunOptions = {
  rounds: number;
  /** Fewer requests a round. */
  quick: boolean;
  hosts: readonly Host[];
  /** The words of the measures, or of their groups; all measures without one. */
  only: string[];
  /** Other builds of this service, on Cloudflare. */
  builds: OtherBuild[];
};

/** The measures of these hosts that `only` selects. */
export function measuresOf({ hosts, only }: Pick<RunOptions, 'hosts' | 'only'>): Measure[] {
  const all = hosts.flatMap((host) => measuresOn[host]);
  const isSelected = ({ name }: Measure) => only.some((word) => name === word || name.startsWith(`${word}-`));
  return only.length === 0 ? all : all.filter(isSelected);
}

/** The words for `only`. */
export const measureNames = (hosts: readonly Host[]): string[] => measuresOf({ hosts, only: [] }).map(({ name }) => name);

/** Runs the measures; returns their figures. */
export async function runAll(options: RunOptions): Promise<Figures> {
  const { rounds, quick, builds } = options;
  const measures = measuresOf(options);
  const [hasWorkers, hasFunctions] = [onCloudflare, edgeFunctions].map((list) => measures.some((measure) => list.includes(measure)));
  let upstream: Upstream | undefined;
  const traffic = await createTraffic(() => `${upstream?.url}/auth/v1`);
  upstream = await startUpstream(traffic.keySet);
  const closers: (() => Promise<void>)[] = [upstream.close];
  try {
    const started = upstream;
    const keep = async (starting: Promise<Target>): Promise<Target> => {
      const target = await starting;
      closers.unshift(target.close);
      return target;
    };
    const bench = await step('starting the targets', async (): Promise<Bench> => {
      const contenders: Contender[] = [];
      for (const definition of hasWorkers ? definitionsWith(builds) : []) {
        const start = (limit?: number) => keep(startTarget(definition, started.url, limit));
        contenders.push({ ...definition, target: await start(), limited: await start(1) });
      }
      const startFunctions = async (limit?: number) => {
        const entries: [FunctionName, Target][] = [];
        for (const name of hasFunctions ? FUNCTIONS : []) entries.push([name, await keep(startFunction(name, started, limit))]);
        return Object.fromEntries(entries) as Record<FunctionName, Target>;
      };
      return {
        upstream: started,
        traffic,
        figures: new Figures(),
        quick,
        contenders,
        functions: await startFunctions(),
        limitedFunctions: await startFunctions(1),
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

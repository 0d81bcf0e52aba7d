/** Measures a cold start until the first response, above that of an empty worker; then the first generation. */
import { randomUUID } from 'node:crypto';
import { type Prepared, prepare } from '../bare_workerd.ts';
import { type Bench, inTurn, type Measure } from '../bench.ts';
import { monotonicMs, send } from '../client.ts';
import type { Goal } from '../figures.ts';
import { cpuMs } from '../processes.ts';
import { emptyWorker } from '../targets.ts';

/** Starts in a round: a start takes a tenth of a second, and varies by as much. */
const STARTS = 3;

type Start = { wall_ms: number; cpu_ms: number; post_ms: number; postCpu_ms: number };

export const coldStart: Measure = {
  name: 'cold-start',
  title: 'cold start',
  when: 'each round',
  async run(bench, round) {
    await bench.upstream.set();
    const prepared: Prepared[] = [];
    try {
      for (const definition of [emptyWorker, ...bench.contenders]) prepared.push(await prepare(definition, bench.upstream.url));
      for (let time = 0; time < STARTS; time += 1) await startEach(bench, prepared, round * STARTS + time);
    } finally {
      for (const { remove } of prepared) await remove();
    }
  },
};

async function startEach(bench: Bench, prepared: Prepared[], time: number): Promise<void> {
  const starts = new Map<string, Start>();
  for (const target of inTurn(prepared, time)) starts.set(target.name, await start(bench, target));
  const empty = starts.get('empty');
  const goal = (at: number): { goal: Goal } => ({ goal: { over: 'peer', at, is: 'at most' } });
  for (const { name } of bench.contenders) {
    const started = starts.get(name);
    if (started === undefined || empty === undefined) continue;
    const [cold, first] = ['cold start, over an empty worker', 'first generation after a cold start'];
    const { figures } = bench;
    figures.add({ work: cold, figure: 'until the first answer', unit: 'ms', ...goal(0.3) }, name, started.wall_ms - empty.wall_ms);
    figures.add({ work: cold, figure: 'CPU until the first answer', unit: 'ms', ...goal(0.3) }, name, started.cpu_ms - empty.cpu_ms);
    figures.add({ work: first, figure: 'time', unit: 'ms', ...goal(1.7) }, name, started.post_ms);
    figures.add({ work: first, figure: 'CPU', unit: 'ms' }, name, started.postCpu_ms);
    // Both over an empty worker: a target may compile before its first response, or after it.
    const together = 'cold start and first generation together';
    figures.add({ work: together, figure: 'time', unit: 'ms', ...goal(0.65) }, name, started.wall_ms - empty.wall_ms + started.post_ms);
    figures.add({ work: together, figure: 'CPU', unit: 'ms' }, name, started.cpu_ms - empty.cpu_ms + started.postCpu_ms);
  }
}

async function start({ traffic }: Bench, { name, start }: Prepared): Promise<Start> {
  const start_ms = monotonicMs();
  const target = await start();
  try {
    await send(target.url, traffic.health());
    const wall_ms = monotonicMs() - start_ms;
    const cpu_ms = await cpuMs(target.pid);
    if (name === 'empty') return { wall_ms, cpu_ms, post_ms: 0, postCpu_ms: 0 };
    const { status, ms: post_ms } = await send(target.url, traffic.plain(randomUUID()));
    if (status !== 201) throw new Error(`${name} answers its first generation with ${status}`);
    return { wall_ms, cpu_ms, post_ms, postCpu_ms: (await cpuMs(target.pid)) - cpu_ms };
  } finally {
    await target.close();
  }
}

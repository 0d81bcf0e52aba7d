/** Measures the Edge Functions: CPU, cold starts, the life of an isolate, and the requests of a generation. */
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { type Bench, inTurn, type Measure } from '../bench.ts';
import { type Answer, type HttpRequest, monotonicMs, send } from '../client.ts';
import { type FunctionName, FUNCTIONS, functionKb, startFunction } from '../edge_functions.ts';
import { quantile } from '../figures.ts';
import { load } from '../load.ts';
import { cpuMs, firstThreadCpuMs } from '../processes.ts';
import { inTurns } from '../traffic.ts';
import type { Settings } from '../upstream.ts';

const HOST = 'Supabase Edge';
const MANY_AT_ONCE = 16;

/** https://supabase.com/docs/guides/functions/limits: CPU time of an isolate; at half of it, the isolate gets no more requests. */
const ISOLATE_CPU_MS = 2000;

type Kind = {
  /** The measure's word for `--only`. */
  word: string;
  name: string;
  settings: Partial<Settings>;
  request: (bench: Bench, user: string) => HttpRequest;
  isGood: (answer: Answer) => boolean;
  /** Requests a round, sequential and concurrent. */
  counts: { one: number; many: number };
};

const plain: Kind = {
  word: 'edge-plain',
  name: 'plain generation, 8 cards, model without delay',
  settings: {},
  request: ({ traffic }, user) => traffic.plain(user),
  isGood: ({ status }) => status === 201,
  counts: { one: 150, many: 480 },
};

const streamed: Kind = {
  word: 'edge-stream',
  name: 'streamed answer, 8 cards, model without delay',
  settings: {},
  request: ({ traffic }, user) => traffic.stream(user),
  isGood: ({ status, body }) => status === 200 && body.includes('event: done'),
  counts: { one: 40, many: 64 },
};

/** With a pause between the chunks, each candidate is stored and sent alone, as with a real model. */
const streamedSlowly: Kind = { ...streamed, word: 'edge-stream-paced', name: 'streamed answer, 8 cards, model 2 ms a chunk', settings: { chunk_delay_ms: 2 }, counts: { one: 10, many: 64 } };

const kinds = [plain, streamed, streamedSlowly];

const requests = kinds.map(
  (kind): Measure => ({
    name: kind.word,
    title: `${HOST}: ${kind.name}`,
    when: 'each round',
    async run(bench, round) {
      await bench.upstream.set(kind.settings);
      for (const name of inTurn(FUNCTIONS, round)) await runKind(bench, name, kind);
    },
  }),
);

async function runKind(bench: Bench, name: FunctionName, { name: kind, request, isGood, counts }: Kind): Promise<void> {
  const { upstream, figures, traffic, functions, quick } = bench;
  const work = `${HOST}: ${kind}`;
  const requestsOf = (count: number) => inTurns(traffic.users, Math.ceil(count * (quick ? 0.4 : 1)), (user) => request(bench, user));
  await load(functions[name], upstream, requestsOf(counts.one), MANY_AT_ONCE, isGood);
  for (const [atOnce, count] of [[1, counts.one], [MANY_AT_ONCE, counts.many]] as const) {
    const { cpu_ms, firstThread_ms, latencies_ms, perSecond } = await load(functions[name], upstream, requestsOf(count), atOnce, isGood);
    const how = atOnce === 1 ? 'one at a time' : `${atOnce} at a time`;
    figures.add({ work, figure: `CPU, ${how}`, unit: 'ms' }, name, cpu_ms);
    figures.add({ work, figure: `isolate's thread, ${how}`, unit: 'ms' }, name, firstThread_ms);
    figures.add({ work, figure: `in ${ISOLATE_CPU_MS / 1000} s of it, ${how}`, unit: '' }, name, ISOLATE_CPU_MS / firstThread_ms);
    if (atOnce === 1) figures.add({ work, figure: `p50, ${how}`, unit: 'ms' }, name, quantile(latencies_ms, 0.5));
    else figures.add({ work, figure: `requests a second, ${how}`, unit: '/s' }, name, perSecond);
  }
}

/** Starts in a round. */
const STARTS = 3;

const coldStart: Measure = {
  name: 'edge-cold-start',
  title: `${HOST}: cold start`,
  when: 'each round',
  async run(bench, round) {
    await bench.upstream.set();
    for (let time = 0; time < STARTS; time += 1) await startEach(bench, round * STARTS + time);
  },
};

type Start = { wall_ms: number; cpu_ms: number; import_ms: number };

async function startEach(bench: Bench, time: number): Promise<void> {
  const { figures } = bench;
  const starts = new Map<FunctionName | 'empty', Start>();
  for (const name of inTurn(['empty', ...FUNCTIONS] as const, time)) starts.set(name, await start(bench, name));
  const empty = starts.get('empty');
  for (const name of FUNCTIONS) {
    const started = starts.get(name);
    if (started === undefined || empty === undefined) continue;
    const work = `${HOST}: cold start`;
    figures.add({ work, figure: 'process start until the first answer', unit: 'ms' }, name, started.wall_ms);
    figures.add({ work, figure: 'the same, over an empty function', unit: 'ms' }, name, started.wall_ms - empty.wall_ms);
    figures.add({ work, figure: 'CPU, over an empty function', unit: 'ms' }, name, started.cpu_ms - empty.cpu_ms);
    figures.add({ work, figure: 'import, compile and instantiate', unit: 'ms' }, name, started.import_ms);
  }
}

async function start(bench: Bench, name: FunctionName | 'empty'): Promise<Start> {
  const start_ms = monotonicMs();
  const target = await startFunction(name, bench.upstream);
  try {
    await send(target.url, bench.traffic.health());
    const wall_ms = monotonicMs() - start_ms;
    const cpu_ms = await cpuMs(target.pid);
    if (name === 'empty') return { wall_ms, cpu_ms, import_ms: target.import_ms };
    const { status, ms: post_ms } = await send(target.url, bench.traffic.plain(randomUUID()));
    if (status !== 201) throw new Error(`${target.name} answers its first generation with ${status}`);
    const work = `${HOST}: first generation after a cold start`;
    bench.figures.add({ work, figure: 'time', unit: 'ms' }, name, post_ms);
    bench.figures.add({ work, figure: 'CPU', unit: 'ms' }, name, (await cpuMs(target.pid)) - cpu_ms);
    return { wall_ms, cpu_ms, import_ms: target.import_ms };
  } finally {
    await target.close();
  }
}

/** Requests at once of a new isolate: a batch after the other. */
const BATCH = 4;

/** Counts the generations of new isolates, whose first ones cost more than those of a warm isolate. */
const isolateLife: Measure = {
  name: 'edge-life',
  title: `${HOST}: the life of an isolate`,
  when: 'once',
  async run(bench) {
    const times = bench.quick ? 1 : 3;
    const empty = await startFunction('empty', bench.upstream);
    await send(empty.url, bench.traffic.health());
    // The runtime's own start is in no isolate's account.
    const runtime_ms = await firstThreadCpuMs(empty.pid);
    await empty.close();
    for (const kind of bench.quick ? [plain] : kinds) {
      await bench.upstream.set(kind.settings);
      for (let time = 0; time < times; time += 1) {
        for (const name of FUNCTIONS) await runLife(bench, name, kind, runtime_ms);
      }
    }
  },
};

async function runLife(bench: Bench, name: FunctionName, { name: kind, request, isGood }: Kind, runtime_ms: number): Promise<void> {
  const target = await startFunction(name, bench.upstream);
  try {
    const used_ms = async () => (await firstThreadCpuMs(target.pid)) - runtime_ms;
    let count = 0;
    for (const limit_ms of [ISOLATE_CPU_MS / 2, ISOLATE_CPU_MS]) {
      while ((await used_ms()) < limit_ms) {
        await load(target, bench.upstream, inTurns(bench.traffic.users, BATCH, (user) => request(bench, user)), BATCH, isGood);
        count += BATCH;
      }
      const figure = `in the first ${limit_ms / 1000} s of CPU`;
      bench.figures.add({ work: `${HOST}: generations of a new isolate: ${kind}`, figure, unit: '' }, name, count);
    }
  } finally {
    await target.close();
  }
}

/** Work after the response, as for the end of a session. */
const AFTERWARDS_MS = 200;

const trips: Measure = {
  name: 'edge-calls',
  title: `${HOST}: requests of a generation`,
  when: 'once',
  async run(bench) {
    // With these delays, a request beside the model call is not answered when the call arrives.
    const delays = { record: true, database_delay_ms: 20, model_delay_ms: 100 };
    for (const name of FUNCTIONS) {
      for (const kind of [plain, streamedSlowly]) {
        await bench.upstream.set({ ...kind.settings, ...delays });
        const target = await startFunction(name, bench.upstream);
        try {
          for (const isolate of ['cold', 'warm']) await countRequests(bench, name, `${kind.name}, ${isolate} isolate`, target.url, kind);
        } finally {
          await target.close();
        }
      }
    }
  },
};

async function countRequests(bench: Bench, name: FunctionName, title: string, url: string, kind: Kind): Promise<void> {
  const { upstream, traffic, figures } = bench;
  await upstream.log();
  const answer = await send(url, kind.request(bench, traffic.users[0] ?? ''));
  if (!kind.isGood(answer)) throw new Error(`the Edge Function of ${name} answers with ${answer.status}: ${answer.body.slice(-300)}`);
  await pause(AFTERWARDS_MS);
  const { calls, awaited } = await upstream.log();
  const database = Object.entries(calls).filter(([call]) => call.includes(' /rest/v1/'));
  const work = `${HOST}: requests of a ${title}`;
  figures.add({ work, figure: 'to the database', unit: '' }, name, database.reduce((sum, [, count]) => sum + count, 0));
  figures.add({ work, figure: 'that the model call waits for', unit: '' }, name, awaited.length);
}

const size: Measure = {
  name: 'edge-script',
  title: `${HOST}: script size`,
  when: 'once',
  async run({ figures }) {
    for (const name of FUNCTIONS) figures.add({ work: `${HOST}: script`, figure: 'size, gzipped', unit: 'kB' }, name, await functionKb(name));
  },
};

export const edgeFunctions: Measure[] = [...requests, coldStart, size, trips, isolateLife];

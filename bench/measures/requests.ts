/** Measures the CPU, time and throughput of requests, for each kind of response. */
import { randomUUID } from 'node:crypto';
import { inTurns } from '../traffic.ts';
import { type Bench, inTurn, type Measure } from '../bench.ts';
import type { Answer, HttpRequest } from '../client.ts';
import { type Goal, quantile, type RowHead } from '../figures.ts';
import { load } from '../load.ts';
import type { Settings } from '../upstream.ts';

const MANY_AT_ONCE = 16;
type Case = {
  /** The measure's word for `--only`. */
  name: string;
  work: string;
  settings: Partial<Settings>;
  /** Whether the peer would take hours. */
  withoutPeer?: true;
  /** On the targets whose users are at their limit. */
  limited?: true;
  request: (bench: Bench, user: string) => HttpRequest;
  isGood: (answer: Answer) => boolean;
  /** Requests a round, sequential and concurrent. */
  counts: { one: number; many: number };
  /** `cpu`: of requests one at a time, and 16 at a time. */
  goals: { cpu?: [Goal, Goal]; perSecond?: Goal };
};

const atMost = (at: number): Goal => ({ over: 'peer', at, is: 'at most' });
const hasStatus = (status: number) => (answer: Answer) => answer.status === status;
const isCreated = hasStatus(201);
const isWholeStream = ({ status, body }: Answer) => status === 200 && body.includes('event: done');

const refusal = (status: number, cpu: number, request: Case['request'], counts = { one: 400, many: 1200 }): Case => ({
  name: `${status}`,
  work: `${status}`,
  settings: {},
  request,
  isGood: hasStatus(status),
  counts,
  goals: { cpu: [atMost(cpu), atMost(cpu)] },
});

const streamed = (candidates: number, cpu: number, counts: Case['counts']): Case => ({
  name: `stream-${candidates}`,
  work: `streamed answer, ${candidates} cards`,
  settings: { cards: candidates },
  request: ({ traffic }, user) => traffic.stream(user),
  isGood: isWholeStream,
  counts,
  goals: { cpu: [atMost(cpu), atMost(cpu)] },
});

const cases: Case[] = [
  {
    name: 'plain-fast',
    work: 'plain generation, 8 cards, model without delay',
    settings: {},
    request: ({ traffic }, user) => traffic.plain(user),
    isGood: isCreated,
    counts: { one: 150, many: 480 },
    goals: { cpu: [atMost(1.0), atMost(1.1)], perSecond: { over: 'peer', at: 0.95, is: 'at least' } },
  },
  {
    name: 'plain-paced',
    work: 'plain generation, 8 cards, model 1 ms a chunk',
    settings: { chunk_delay_ms: 1 },
    request: ({ traffic }, user) => traffic.plain(user),
    isGood: isCreated,
    counts: { one: 15, many: 240 },
    goals: { cpu: [atMost(1.3), atMost(1.3)] },
  },
  {
    name: 'new-user',
    work: 'plain generation, 8 cards, a user for the first time',
    settings: {},
    request: ({ traffic }) => traffic.plain(randomUUID()),
    isGood: isCreated,
    counts: { one: 60, many: 0 },
    goals: {},
  },
  refusal(401, 1.0, ({ traffic }, user) => traffic.forged(user)),
  refusal(400, 1.1, ({ traffic }, user) => traffic.tooShort(user)),
  { ...refusal(429, 1.15, ({ traffic }, user) => traffic.plain(user)), limited: true },
  { ...refusal(200, 1.0, ({ traffic }) => traffic.health(), { one: 600, many: 2400 }), name: 'health', work: 'GET /health', goals: {} },
  streamed(8, 0.21, { one: 40, many: 64 }),
  streamed(50, 0.13, { one: 6, many: 16 }),
  // Many of these at once would take the peer minutes.
  streamed(200, 0.11, { one: 2, many: 0 }),
  // The peer parses its whole text again for each chunk.
  { ...streamed(2000, 0.11, { one: 1, many: 0 }), withoutPeer: true, goals: {} },
];

const measureOf = (measured: Case): Measure => ({
  name: measured.name,
  title: measured.work,
  when: 'each round',
  run: (bench, round) => runCase(bench, round, measured),
});

async function runCase(bench: Bench, round: number, { work, settings, withoutPeer, limited, request, isGood, counts, goals }: Case): Promise<void> {
  const { upstream, figures } = bench;
  const scale = bench.quick ? 0.4 : 1;
  await upstream.set(settings);
  for (const { name, ...contender } of inTurn(bench.contenders, round)) {
    if (withoutPeer && name === 'peer') continue;
    const target = limited ? contender.limited : contender.target;
    // After one admitted request a user is at the limit for a minute.
    const users = limited ? bench.traffic.newUsers() : bench.traffic.users;
    const requestsOf = (count: number) => inTurns(users, Math.ceil(count * scale), (user) => request(bench, user));
    const [one, many] = [requestsOf(counts.one), requestsOf(counts.many)];
    // Loads the users' objects into memory.
    const warmUp = inTurns(users, limited ? users.length : Math.min(users.length, one.length), (user) => request(bench, user));
    await load(target, upstream, warmUp, MANY_AT_ONCE, limited ? isCreated : isGood);

    const row = (figure: string, unit: string, goal?: Goal): RowHead => ({ work, figure, unit, ...(goal === undefined ? {} : { goal }) });
    const single = await load(target, upstream, one, 1, isGood);
    figures.add(row('CPU, one at a time', 'ms', goals.cpu?.[0]), name, single.cpu_ms);
    figures.add(row('p50, one at a time', 'ms'), name, quantile(single.latencies_ms, 0.5));
    figures.add(row('p99, one at a time', 'ms'), name, quantile(single.latencies_ms, 0.99));
    if (many.length === 0) continue;
    const crowd = await load(target, upstream, many, MANY_AT_ONCE, isGood);
    figures.add(row('CPU, 16 at a time', 'ms', goals.cpu?.[1]), name, crowd.cpu_ms);
    figures.add(row('requests a second, 16 at a time', '/s', goals.perSecond), name, crowd.perSecond);
  }
}

/** Measures whether the cost of a streamed candidate grows with their number: 1 or less is linear. */
const linear: Measure = {
  name: 'stream-linear',
  title: 'streamed answers, a card of many over a card of 8',
  when: 'once',
  async run({ figures, contenders }) {
    const samples = (candidates: number) => figures.rows.find(({ work, figure }) => work === streamed(candidates, 0, { one: 0, many: 0 }).work && figure === 'CPU, one at a time')?.samples;
    const few = samples(8);
    for (const candidates of [200, 2000]) {
      const head: RowHead = { work: 'streamed answer', figure: `CPU a card, of ${candidates} over of 8`, unit: '×', goal: { over: 'nothing', at: 1, is: 'at most' } };
      for (const { name } of contenders) {
        for (const [round, cpu_ms] of (samples(candidates)?.[name] ?? []).entries()) {
          const fewCpu_ms = few?.[name]?.[round];
          if (fewCpu_ms !== undefined) figures.add(head, name, cpu_ms / candidates / (fewCpu_ms / 8));
        }
      }
    }
  },
};

export const requests: Measure[] = [...cases.map(measureOf), linear];

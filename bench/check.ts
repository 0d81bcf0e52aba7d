/** Checks that a target does all the work: its responses, and the rows that it writes. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { prepare } from './bare_workerd.ts';
import type { Bench, Contender } from './bench.ts';
import { eventsOf, type HttpRequest, send } from './client.ts';
import { FUNCTIONS } from './edge_functions.ts';
import type { Target } from './targets.ts';
import type { Log, Upstream } from './upstream.ts';

const CARDS = 8;
const MODEL_CALL = 'POST /api/v1/chat/completions';
/** The service has more: the targets it is compared with do not check where a card comes from. */
const CARD = ['back', 'front', 'id', 'prompt'];
/** How Edge Functions count the requests of a user. */
const COUNTERS = ['POST /rest/v1/rpc/transact_ai_user_state', 'POST /rest/v1/rpc/take_request'];

type Row = Record<string, unknown>;

export async function checkWorkers(bench: Bench): Promise<void> {
  await bench.upstream.set({ cards: CARDS, record: true });
  for (const contender of bench.contenders) {
    const { name, target, limited } = contender;
    await checkPlain(bench, target);
    await checkStream(bench, target);
    await checkRefusals(bench, target, limited);
    if (name === 'floor-with-promises') await checkPromises(bench, contender);
  }
}

export async function checkFunctions(bench: Bench): Promise<void> {
  await bench.upstream.set({ cards: CARDS, record: true });
  for (const name of FUNCTIONS) {
    await checkPlain(bench, bench.functions[name]);
    await checkStream(bench, bench.functions[name]);
    const calls = await checkRefusals(bench, bench.functions[name], bench.limitedFunctions[name]);
    assert.ok(COUNTERS.some((call) => calls[call] !== undefined), `${name} counts requests in the database, which all isolates share`);
  }
}

async function checkPlain({ upstream, traffic }: Bench, target: Target): Promise<void> {
  const request = traffic.plain(randomUUID());
  await upstream.log();
  const answer = await send(target.url, request);
  assert.equal(answer.status, 201, `${target.name}: ${answer.body}`);
  const { id, partial, candidates } = JSON.parse(answer.body) as { id: string; partial: boolean; candidates: Row[] };
  assert.equal(partial, false);
  checkCandidates(candidates);
  checkRows(await upstream.log(), request, id, candidates, target);
}

async function checkStream({ upstream, traffic }: Bench, target: Target): Promise<void> {
  const request = traffic.stream(randomUUID());
  await upstream.log();
  const answer = await send(target.url, request);
  assert.match(answer.contentType, /^text\/event-stream/, target.name);
  const events = eventsOf(answer);
  assert.deepEqual(events.map(({ event }) => event), ['session', ...Array<string>(CARDS).fill('candidate'), 'done'], target.name);
  const { id } = events[0]?.data as { id: string };
  const candidates = events.slice(1, -1).map(({ data }, at) => {
    const { index, ...candidate } = data as Row;
    assert.equal(index, at, target.name);
    return candidate;
  });
  checkCandidates(candidates);
  const { count } = events.at(-1)?.data as { count: number };
  assert.equal(count, CARDS);
  checkRows(await upstream.log(), request, id, candidates, target);
}

/** Checks the promises that are in no other response; of this service, the tests check them. */
async function checkPromises(bench: Bench, contender: Contender): Promise<void> {
  const { upstream, traffic } = bench;
  const request = traffic.plain(randomUUID());
  const keyed = { ...request, headers: { ...request.headers, 'idempotency-key': randomUUID() } };
  await upstream.log();
  const answers = await Promise.all([send(contender.target.url, keyed), send(contender.target.url, keyed)]);
  const later = await send(contender.target.url, keyed);
  assert.deepEqual([...answers, later].map(({ body }) => body), Array<string>(3).fill(later.body), 'a key has one reply');
  assert.equal((await upstream.log()).calls[MODEL_CALL], 1, 'a key has one generation');
  await checkResuming(bench, contender);
}

/** Kills the process while the model is called, and expects the rows of the session from the next one. */
async function checkResuming({ upstream, traffic }: Bench, contender: Contender): Promise<void> {
  const prepared = await prepare(contender, upstream.url);
  await upstream.set({ cards: CARDS, record: true, model_delay_ms: 60_000 });
  let target = await prepared.start();
  try {
    const cut = send(target.url, traffic.plain(randomUUID())).catch(() => undefined);
    const { id } = (await writeOf(upstream, 'POST /rest/v1/ai_generation_sessions')) as { id: string };
    await target.stop();
    await cut;
    await upstream.set({ cards: CARDS, record: true });
    target = await prepared.start();
    const { session, candidates } = (await writeOf(upstream, 'POST /rest/v1/rpc/finish_ai_session')) as { session: Row; candidates: Row[] };
    assert.deepEqual([session['id'], session['status'], candidates.length], [id, 'completed', CARDS]);
  } finally {
    await target.close();
    await prepared.remove();
  }
}

/** An object's alarm is due 10 s after the acceptance. */
const RESUMED_MS = 20_000;

/** Polls the upstream for the body of this call. */
async function writeOf(upstream: Upstream, call: string): Promise<unknown> {
  for (const end_ms = Date.now() + RESUMED_MS; Date.now() < end_ms; await pause(50)) {
    const write = (await upstream.log()).writes.find((write) => write.call === call);
    if (write !== undefined) return write.body;
  }
  throw new Error(`floor-with-promises sends no ${call}`);
}

function checkCandidates(candidates: Row[]): void {
  assert.equal(candidates.length, CARDS);
  assert.equal(new Set(candidates.flatMap(({ id, front }) => [id, front])).size, 2 * CARDS);
  for (const candidate of candidates) assert.deepEqual(CARD.filter((member) => !(member in candidate)), []);
}

/** Expects the session with its text, candidates and end, written in steps or by one call of `finish_ai_session`. */
function checkRows(log: Log, request: HttpRequest, id: string, candidates: Row[], { name }: Target): void {
  assert.equal(log.calls[MODEL_CALL], 1, `${name} calls the model once`);
  const bodies = (call: string) => log.writes.filter((write) => write.call === call).map(({ body }) => body);
  const [opened] = bodies('POST /rest/v1/ai_generation_sessions') as Row[];
  const sent = JSON.parse(request.body ?? '') as Row;
  assert.deepEqual({ id: opened?.['id'], input_text: opened?.['input_text'], model: opened?.['model'] }, { id, ...sent }, name);
  const [finished] = bodies('POST /rest/v1/rpc/finish_ai_session') as { session: Row; candidates: Row[]; event: Row }[];
  const written = finished?.candidates ?? (bodies('POST /rest/v1/flashcard_candidates') as Row[][])[0];
  const cards = (rows: Row[] | undefined) => rows?.map(({ id, front, back, prompt }) => ({ id, front, back, prompt }));
  assert.deepEqual(cards(written), cards(candidates), name);
  const [ended] = bodies('PATCH /rest/v1/ai_generation_sessions') as Row[];
  assert.equal((finished?.session ?? ended)?.['status'], 'completed', name);
  assert.ok(finished?.event ?? bodies('POST /rest/v1/event_logs')[0], `${name} writes an event`);
}

/** Returns the requests to the upstream that a refused one makes. */
async function checkRefusals({ traffic, upstream }: Bench, target: Target, limited: Target): Promise<Log['calls']> {
  const user = randomUUID();
  await upstream.log();
  const status = async (request: HttpRequest, from = target) => (await send(from.url, request)).status;
  assert.equal(await status(traffic.forged(user)), 401, target.name);
  assert.equal(await status(traffic.tooShort(user)), 400, target.name);
  assert.equal(await status(traffic.health()), 200, target.name);
  const { calls, writes } = await upstream.log();
  assert.deepEqual(writes.filter(({ call }) => !COUNTERS.includes(call)), [], `${target.name} writes nothing for refused requests`);
  // Two Edge Functions have one database: the requests above count for their user.
  const other = randomUUID();
  assert.equal(await status(traffic.plain(other), limited), 201, target.name);
  assert.equal(await status(traffic.plain(other), limited), 429, target.name);
  return calls;
}

// Many clients of each user share a few keys, in every response mode, with stops, failures of the model and the database, and
// crashes: each key has one session, which is billed once, and all its responses agree.
//
// The seed is printed and repeats the choices, the moments only nearly. Longer, by hand:
//   KEY_CRASHES=40 KEY_SEED=7 npx node --test tests/hosts/random_idempotency_keys.test.ts   (after npm run build; npx takes the project's Node)

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { type Answer, candidateOf, create, eventually, lesson, remaining, type Row, sendRequest, type SignedIn, signIn } from '../service/service.ts';
import { parseEvents } from '../support/event_stream.ts';
import { FINISH_PATH } from '../support/gateway.ts';
import { answer, cutAfter, httpError, type ModelBehaviour, refusal } from '../support/model_behaviour.ts';
import { seededChoices, seedFrom } from '../support/seeded_random.ts';
import { startOnWorkerd, type WorkerdService } from './workerd.ts';

const CRASHES = Number(process.env['KEY_CRASHES'] ?? 5);
const USERS = 5;
const CLIENTS = 4;
/** About how many requests have one key before its users take the next. */
const PER_KEY = 10;
const GENERATIONS = 10_000;

/** HEARTBEAT_MS, the model calls after it, and the backoff of database writes. */
const ALL_ENDED_MS = 10_000 + 30_000;

const MODES = { sync: {}, stream: { accept: 'text/event-stream' }, async: { prefer: 'respond-async' } } as const;
type Mode = keyof typeof MODES;

/** A request with a key and its response. */
type Exchange = { user: SignedIn; key: string; mode: Mode; answer: Answer };

const seed = seedFrom('KEY_SEED');
const choices = seededChoices(seed);
const body = { input_text: lesson(), model: 'test/first' };
const other = { ...body, model: 'test/second' };

describe(`idempotency keys and ${CRASHES} crashes (KEY_SEED=${seed})`, () => {
  let service: WorkerdService;
  let users: SignedIn[];
  let sessions: Row[];
  let candidates: Row[];
  let events: Row[];
  const crashes_ms: number[] = [];
  const exchanges: Exchange[] = [];
  /** Model calls, by session. */
  const called_ms = new Map<string, number[]>();
  /** The time of the first completion request, by session. */
  const completing_ms = new Map<string, number>();
  /** Connections that broke without a crash. */
  const broken: string[] = [];
  /** Responses to another body under a key that has a session. */
  const reused: Answer[] = [];

  before(async () => {
    service = await startOnWorkerd({
      RATE_LIMIT_BURST: '1000000/3600',
      RATE_LIMIT_GENERATIONS: `${GENERATIONS}/86400`,
      RATE_LIMIT_CONCURRENT: '3',
    });
    users = await Promise.all(Array.from({ length: USERS }, () => signIn(service)));
    service.world.openrouter.always(troubledModel);
    injectDatabaseFaults();
    await loadAndKill();
    service.world.gateway.clearFaults();
    const { sql } = service.world;
    await eventually('every session has ended', async () => {
      // The owner's request brings a token for sessions not yet persisted, and resumes those that do not run.
      for (const { token } of users) await sendRequest(service, 'GET', `/ai-sessions/${crypto.randomUUID()}`, { token });
      return (await sql<Row>("select 1 from ai_generation_sessions where status = 'generating'")).length === 0 ? true : undefined;
    }, ALL_ENDED_MS);
    [sessions, candidates, events] = await Promise.all([
      sql<Row>('select * from ai_generation_sessions'),
      sql<Row>('select * from flashcard_candidates order by session_id, position'),
      sql<Row>('select * from event_logs order by session_id, run'),
    ]);
    const runs = sessions.filter(({ run }) => run > 1).length;
    console.log(`${exchanges.length} answers, ${sessions.length} sessions, ${runs} of them tried again, ${reused.length} keys reused, seed ${seed}`);
  });
  after(() => service.close());

  it('a response is one of the contract, or its connection broke in a crash', () => {
    assert.deepEqual(broken, []);
    const allowed = ['200', '201', '202', '409 cancelled', '429 rate_limited', '500 ai_invalid_response', '500 ai_refused', '500 ai_timeout', '500 ai_unavailable', '500 database_error'];
    const statuses = new Set(exchanges.map(({ answer: { status, body } }) => `${status} ${body?.code ?? ''}`.trim()));
    assert.deepEqual([...statuses].filter((one) => !allowed.includes(one)), []);
  });

  it('all responses to a key have one session', () => {
    const sessionsOf = Map.groupBy(exchanges.filter(({ answer }) => answer.headers.has('location')), ({ user, key }) => `${user.id} ${key}`);
    assert.ok(sessionsOf.size > USERS);
    const seen = new Set<string>();
    for (const [key, all] of sessionsOf) {
      const ids = new Set(all.map(({ answer }) => answer.headers.get('location')?.split('/').at(-1) ?? ''));
      assert.equal(ids.size, 1, `${key}: ${[...ids].join()}`);
      for (const id of ids) seen.add(id);
    }
    assert.equal(seen.size, sessionsOf.size, 'no two keys have the same session');
    // A request whose connection broke may have been the only one of its key.
    assert.deepEqual([...seen].filter((id) => !sessions.some((session) => session['id'] === id)), []);
  });

  it('the candidates of a response are the stored ones', () => {
    const stored = Map.groupBy(candidates, ({ session_id }) => session_id);
    for (const { mode, answer } of exchanges) {
      const candidates = candidatesIn(mode, answer);
      const id = answer.headers.get('location')?.split('/').at(-1);
      const rows = (stored.get(id) ?? []).map(candidateOf);
      if (candidates !== undefined) assert.deepEqual(rows, candidates, `${id} ${mode}`);
    }
  });

  it('each run ended at most once, and only retryable ones were repeated', () => {
    for (const { id, run, status, error_code } of sessions) {
      const ends = events.filter(({ session_id }) => session_id === id);
      assert.equal(new Set(ends.map(({ run }) => run)).size, ends.length, id);
      assert.deepEqual([ends.at(-1)?.['run'], ends.at(-1)?.['type'], ends.at(-1)?.['data'].code ?? null], [run, `ai_session.${status}`, error_code]);
      for (const { type, data } of ends.slice(0, -1)) {
        assert.equal(type, 'ai_session.failed');
        assert.notEqual(data.code, 'ai_refused');
      }
    }
  });

  it('no model is called again after the candidates are complete', () => {
    const again = [...completing_ms].filter(([id, since_ms]) => called_ms.get(id)?.some((at_ms) => at_ms > since_ms));
    assert.deepEqual(again, []);
  });

  it('another body under the key of a session is refused', () => {
    assert.ok(reused.length > 0);
    assert.deepEqual([...new Set(reused.map(({ status }) => status))], [422]);
  });

  it('the charged generations are the completed and the refused ones', async () => {
    for (const { id, token } of users) {
      const theirs = sessions.filter(({ user_id }) => user_id === id);
      const earned = theirs.filter(({ status, error_code }) => status === 'completed' || error_code === 'ai_refused').length;
      assert.equal(GENERATIONS - (remaining(await create(service, token, '{'))['generations'] ?? Number.NaN), earned);
    }
  });

  it('each key now ends with the same response for all requests', async () => {
    service.world.openrouter.reset();
    const keys = new Map(exchanges.map(({ user, key }) => [`${user.id} ${key}`, { user, key }]));
    for (const { user, key } of keys.values()) {
      const answers = await Promise.all([1, 2, 3].map(() => keyed(user, key, 'sync')));
      const [first] = answers;
      assert.ok(first?.status === 201 || first?.body.code === 'ai_refused', first?.text);
      if (first.status === 201) assert.equal(new Set(answers.map(({ text }) => text)).size, 1);
    }
  });

  const keyed = ({ token }: SignedIn, key: string, mode: Mode, sent: object = body): Promise<Answer> =>
    create(service, token, sent, { 'idempotency-key': key, ...MODES[mode] });

  /** Sends requests while the process is killed repeatedly. */
  async function loadAndKill(): Promise<void> {
    let up: Promise<void> = Promise.resolve();
    let isOver = false;
    const requestsOf = new Map<SignedIn, number>();
    const one = async (user: SignedIn) => {
      const began_ms = Date.now();
      const nth = requestsOf.get(user) ?? 0;
      requestsOf.set(user, nth + 1);
      const key = `key-${Math.floor(nth / PER_KEY)}`;
      const mode = choices.pick<Mode>([[3, 'sync'], [1, 'stream'], [1, 'async']]);
      try {
        const answer = await keyed(user, key, mode);
        exchanges.push({ user, key, mode, answer });
        const id = answer.headers.get('location')?.split('/').at(-1);
        if (id !== undefined && choices.chance(0.1)) reused.push(await keyed(user, key, mode, other));
        if (id !== undefined && mode === 'async' && choices.chance(0.3)) await sendRequest(service, 'DELETE', `/ai-sessions/${id}`, { token: user.token });
        // A pause, where crashed generations use the concurrent limit.
        if (answer.status === 429) await pause(100);
      } catch (error) {
        if (!crashes_ms.some((crash_ms) => crash_ms >= began_ms)) broken.push(String(error));
      }
    };
    const load = users.flatMap((user) =>
      Array.from({ length: CLIENTS }, async () => {
        while (!isOver) {
          await up;
          await one(user);
        }
      }),
    );
    for (let n = 0; n < CRASHES; n += 1) {
      await pause(choices.between(300, 2_500));
      crashes_ms.push(Date.now());
      up = service.kill();
      await up;
    }
    isOver = true;
    await Promise.all(load);
  }

  function injectDatabaseFaults(): void {
    const { gateway } = service.world;
    const sometimes = (probability: number) => (request: { method: string; path: string }) =>
      request.method === 'POST' && request.path.startsWith('/rest/v1/') && choices.chance(probability);
    // The first matcher: it sees every request and sets no fault.
    gateway.fail((request) => {
      if (request.path !== FINISH_PATH) return false;
      const { session } = JSON.parse(request.raw) as { session: { id: string; status: string } };
      if (session.status === 'completed' && !completing_ms.has(session.id)) completing_ms.set(session.id, Date.now());
      return false;
    }, { kind: 'hang' });
    gateway.fail(sometimes(0.15), { kind: 'answer', status: 503 });
    gateway.fail(sometimes(0.1), { kind: 'cut', kept: true });
    gateway.fail(sometimes(0.1), { kind: 'delay', ms: 300, kept: true });
    gateway.fail(sometimes(0.3), { kind: 'delay', ms: 50 });
  }

  /** Mostly good answers, and often failures. */
  async function troubledModel(turn: Parameters<ModelBehaviour>[0]): Promise<void> {
    const id = String(turn.request.headers['x-session-id']);
    called_ms.set(id, [...(called_ms.get(id) ?? []), Date.now()]);
    const behaviour = choices.pick<() => ModelBehaviour>([
      [8, () => answer({ candidates: choices.between(1, 20), pause_ms: choices.between(0, 6) })],
      [4, () => httpError(503)],
      [2, () => answer({ content: 'I have no cards today.' })],
      [1, () => cutAfter(choices.between(1, 5))],
      [1, () => refusal()],
    ])();
    if (choices.chance(0.5)) await turn.pause(choices.between(1, 400));
    await behaviour(turn);
  }
});

/** All candidates of a response; undefined where it has none. */
function candidatesIn(mode: Mode, { status, body, text }: Answer): object[] | undefined {
  if (mode === 'sync') return status === 201 ? body.candidates : undefined;
  if (mode === 'async') return body.status === 'completed' ? body.candidates : undefined;
  const events = parseEvents(text);
  const isDone = events.at(-1)?.event === 'done';
  return isDone ? events.filter(({ event }) => event === 'candidate').map(({ data: { index: _, ...candidate } }) => candidate) : undefined;
}

// The scheduled wake-up of an Edge Function: a generation that a killed isolate left ends without a request of its owner.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { createStream, endedSession, eventually, lesson, rowsOf, signIn, type SignedIn } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { answer } from '../support/model_behaviour.ts';
import { makeDue, runSchedule, type ScheduledCall, scheduleCalls, sendCall } from '../support/scheduled_calls.ts';
import { within } from '../support/within.ts';
import { expireLeases, generations } from './isolates.ts';
import { type EdgeService, startOnSupabaseEdge } from './supabase_edge.ts';

const CANDIDATES = 20;
const body = { input_text: lesson(), model: 'test/first' };

/** Every row of every table of the cluster's own schemas that contains the text. */
async function rowsWith(service: EdgeService, text: string): Promise<string[]> {
  const { sql } = service.world;
  const tables = await sql<{ name: string }>(
    `select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname not in ('pg_catalog', 'information_schema') order by 1`,
  );
  assert.ok(['ai_sessions.generations', 'public.event_logs', 'net.http_request_queue'].every((table) => tables.some(({ name }) => name === table)));
  const found: string[] = [];
  for (const { name } of tables) {
    const rows = await sql<{ row: string }>(`select t::text as row from ${name} as t where strpos(t::text, $1) > 0`, [text]);
    found.push(...rows.map(({ row }) => `${name} ${row}`));
  }
  return found;
}

/** The parts of a token, each of which would be worth something. */
const partsOf = (token: string): string[] => [token, ...token.split('.').slice(1), Buffer.from(token).toString('hex')];

describe('the scheduled wake-up of an Edge Function', () => {
  let service: EdgeService;
  before(async () => {
    service = await startOnSupabaseEdge({ WAKE_UP: '1' });
    await scheduleCalls(service.world, service.url);
  });
  after(() => service.close());

  /** A generation whose isolate is killed after that many candidates, and whose lease has expired. */
  async function left(user: SignedIn, candidates: number): Promise<void> {
    const { openrouter } = service.world;
    openrouter.reset();
    openrouter.next(answer({ hold: { gate: createGate(), after_candidates: candidates } }));
    const stream = await createStream(service, user.token, body);
    await stream.some(1 + candidates);
    await openrouter.arrived(1);
    await service.runtime.restart();
    await within(stream.end, 'the end of the connection');
    await expireLeases(service, user);
    await makeDue(service.world);
  }

  async function scheduledCall(): Promise<ScheduledCall> {
    const [call, ...more] = await runSchedule(service.world);
    assert.ok(call);
    assert.deepEqual(more, []);
    return call;
  }

  const isRemoved = (user: SignedIn) => eventually('the generation is removed', async () => ((await generations(service, user)).length === 0 ? true : undefined));

  it('a generation that a killed isolate left ends without its owner', async () => {
    const user = await signIn(service);
    await left(user, 2);
    const [stored] = await service.world.sql<{ record: string }>('select record from ai_sessions.generations where user_id = $1', [user.id]);
    assert.match(JSON.parse(stored?.record ?? '{}').sealed_token, /^([0-9a-f]{2}){100,}$/);
    for (const part of partsOf(user.token)) assert.deepEqual(await rowsWith(service, part), []);

    const response = await sendCall(await scheduledCall());
    assert.deepEqual([response.status, await response.text()], [204, '']);
    const session = await endedSession(service, user);
    assert.deepEqual([session['status'], session['partial'], session['error_code']], ['completed', true, null]);
    const rows = await rowsOf(service, user);
    assert.deepEqual([rows.candidates.length, rows.events.map(({ type }) => type)], [2, ['ai_session.completed']]);
    await isRemoved(user);
    assert.equal(service.world.openrouter.requests.total, 1);
    assert.deepEqual(await service.world.sql('select wake_at from ai_sessions.user_states where user_id = $1', [user.id]), [{ wake_at: null }]);
    for (const part of partsOf(user.token)) assert.deepEqual(await rowsWith(service, part), []);
    assert.deepEqual(service.logs.filter((line) => line.includes(user.token)), []);
  });

  it('a generation without a candidate continues with another model call', async () => {
    const user = await signIn(service);
    await left(user, 0);
    assert.equal((await sendCall(await scheduledCall())).status, 204);
    const session = await endedSession(service, user);
    assert.deepEqual([session['status'], session['partial']], ['completed', false]);
    assert.equal((await rowsOf(service, user)).candidates.length, CANDIDATES);
    await isRemoved(user);
    assert.equal(service.world.openrouter.requests.total, 2);
  });

  it('a generation that an isolate drives is left alone', async () => {
    const user = await signIn(service);
    const { openrouter } = service.world;
    const gate = createGate();
    openrouter.reset();
    openrouter.next(answer({ hold: { gate, after_candidates: 2 } }));
    const stream = await createStream(service, user.token, body);
    await stream.some(3);
    await makeDue(service.world);
    assert.deepEqual(await runSchedule(service.world), []);
    gate.open();
    await within(stream.end, 'the end of the stream');
    assert.deepEqual([(await endedSession(service, user))['partial'], openrouter.requests.total], [false, 1]);
  });

  it('a repeated call runs nothing twice', async () => {
    const user = await signIn(service);
    await left(user, 1);
    const call = await scheduledCall();
    const responses = await Promise.all([1, 2, 3].map(() => sendCall(call)));
    assert.deepEqual(responses.map(({ status }) => status), [204, 204, 204]);
    await endedSession(service, user);
    await isRemoved(user);
    assert.equal((await sendCall(call)).status, 204);
    assert.deepEqual((await rowsOf(service, user)).events.map(({ type }) => type), ['ai_session.completed']);
  });

  it('a call that the database has not signed is refused', async () => {
    const user = await signIn(service);
    await left(user, 1);
    const call = await scheduledCall();
    const sent = JSON.parse(call.body);
    const stranger = await signIn(service);
    const old = { user: user.id, at_ms: sent.at_ms - 120_000 };
    for (const forged of [
      {},
      { ...sent, user: stranger.id },
      { ...sent, at_ms: sent.at_ms + 1 },
      { ...old, proof: sent.proof },
      { ...sent, proof: createHmac('sha256', service.world.anonKey).update(`ai-sessions/wake-up\0${sent.user} ${sent.at_ms}`).digest('hex') },
    ]) {
      const response = await sendCall({ ...call, body: JSON.stringify(forged) });
      const problem = (await response.json()) as { code: string };
      assert.deepEqual([response.status, problem.code], [401, 'invalid_token'], JSON.stringify(forged));
    }
    assert.equal((await generations(service, user)).length, 1);
    assert.equal((await sendCall(call)).status, 204);
    await endedSession(service, user);
  });
});

describe('an Edge Function without the wake-up', () => {
  let service: EdgeService;
  before(async () => {
    service = await startOnSupabaseEdge();
    await scheduleCalls(service.world, service.url);
  });
  after(() => service.close());

  it('stores no token and no time, and has nothing at the path', async () => {
    const user = await signIn(service);
    const gate = createGate();
    service.world.openrouter.next(answer({ hold: { gate, after_candidates: 1 } }));
    const stream = await createStream(service, user.token, body);
    await stream.some(2);
    const [stored] = await service.world.sql<{ record: string; wake_at: unknown }>(
      'select record, wake_at from ai_sessions.generations join ai_sessions.user_states using (user_id) where user_id = $1',
      [user.id],
    );
    assert.equal(stored?.wake_at, null);
    assert.ok(!('sealed_token' in JSON.parse(stored.record)));
    const response = await sendCall({ url: `${service.url}/internal/wake-up`, body: '{}', headers: {}, timeout_milliseconds: 0 });
    assert.equal(response.status, 404);
    gate.open();
    await within(stream.end, 'the end of the stream');
  });
});

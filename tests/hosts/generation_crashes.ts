// `kill -9` of a host's process at each stage of a generation, and a start on the same storage. The contract, section 3: the
// generation is resumed, by the alarm or by the owner's next request. (At random moments, under load: random_crashes.ts.)

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { type Answer, create, eventually, lesson, read, remaining, rowsOf, sendRequest, type Service, type SignedIn, signIn } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { type Fault, FINISH_PATH, SESSIONS_PATH } from '../support/gateway.ts';
import { answer, gated, httpError, type ModelBehaviour, refusal } from '../support/model_behaviour.ts';
import type { CrashHost } from './crash_host.ts';

/** HEARTBEAT_MS: an alarm resumes a generation at most this long after a crash. */
const HEARTBEAT_MS = 10_000;
/**
 * A candidate that is complete for longer is not lost: four times HOLD_MS, for a busy machine. Less than REST_MS,
 * after which the service no longer waits for the end of a stream.
 */
const STORED_MS = 1_000;

/** A generation on its way to the stage of its crash. */
type Victim = {
  user: SignedIn;
  /** The response, if the client receives one. */
  answer: Promise<Answer | undefined>;
  /** Stages. */
  modelCalled: Promise<unknown>;
  rowOpened: () => Promise<unknown>;
  databaseCalled: (path: string) => Promise<unknown>;
};

type Case = {
  when: string;
  /** The behaviour of the model at the first call; a second one has a good answer. */
  model?: ModelBehaviour;
  /** The faults of this user's database requests, until the crash. */
  fault?: [path: string, fault: Fault];
  /** Waits for the stage. */
  stage: (victim: Victim) => Promise<unknown>;
  /** The stage is one of a host with alarms. */
  hasAlarm?: true;
  /** The client disconnects before the crash. */
  clientLeaves?: true;
  /** The code in the client's response before the crash. */
  reportedCode?: string;
  fate: {
    status: 'completed' | 'failed';
    code?: string;
    /** Absent where the contract leaves it open. */
    partial?: boolean;
    candidates: number;
    modelCalls: number;
    generationsCharged: number;
  };
};

const whole = { status: 'completed', partial: false, candidates: 20, generationsCharged: 1 } as const;
/** Nothing of the first answer was stored. */
const calledAgain: Case['fate'] = { ...whole, modelCalls: 2 };
/** The whole answer was stored, and is not billed twice. */
const kept: Case['fate'] = { ...whole, modelCalls: 1 };

/** A gate that stays closed until the crash. */
const shut = () => createGate();

function stages(): Case[] {
  const [afterOne, afterFive] = [shut(), shut()];
  return [
    {
      when: 'after its first heartbeat, with no bytes of the model',
      model: gated(shut()),
      hasAlarm: true,
      stage: () => pause(HEARTBEAT_MS + 1_000),
      fate: calledAgain,
    },
    {
      when: 'before its row is open and before the first candidate',
      model: gated(shut()),
      fault: [SESSIONS_PATH, { kind: 'gate', gate: shut() }],
      stage: ({ modelCalled, databaseCalled }) => Promise.all([modelCalled, databaseCalled(SESSIONS_PATH)]),
      fate: calledAgain,
    },
    {
      when: 'when its row is open but not confirmed',
      model: gated(shut()),
      fault: [SESSIONS_PATH, { kind: 'gate', gate: shut(), kept: true }],
      stage: ({ modelCalled, rowOpened }) => Promise.all([modelCalled, rowOpened()]),
      fate: calledAgain,
    },
    {
      when: 'before the first candidate',
      model: gated(shut()),
      stage: ({ modelCalled, rowOpened }) => Promise.all([modelCalled, rowOpened()]),
      fate: calledAgain,
    },
    {
      when: 'before the first candidate, without its client',
      model: gated(shut()),
      stage: ({ modelCalled, rowOpened }) => Promise.all([modelCalled, rowOpened()]),
      clientLeaves: true,
      fate: calledAgain,
    },
    {
      when: 'after one candidate and silence',
      model: answer({ hold: { gate: afterOne, after_candidates: 1 } }),
      stage: () => afterOne.reached,
      fate: { ...kept, partial: true, candidates: 1 },
    },
    {
      when: 'after five slow candidates',
      model: answer({ hold: { gate: afterFive, after_candidates: 5 }, pause_ms: 10 }),
      stage: () => afterFive.reached,
      fate: { ...kept, partial: true, candidates: 5 },
    },
    {
      when: 'while its completion is sent',
      fault: [FINISH_PATH, { kind: 'gate', gate: shut() }],
      stage: ({ databaseCalled }) => databaseCalled(FINISH_PATH),
      fate: kept,
    },
    {
      when: 'when its completion is stored but not confirmed',
      fault: [FINISH_PATH, { kind: 'gate', gate: shut(), kept: true }],
      stage: ({ databaseCalled }) => databaseCalled(FINISH_PATH),
      fate: kept,
    },
    {
      when: 'when the database has rejected its completion',
      fault: [FINISH_PATH, { kind: 'answer', status: 503 }],
      stage: ({ answer }) => answer,
      reportedCode: 'database_error',
      fate: kept,
    },
    {
      when: 'when it has failed, not yet persisted',
      model: httpError(402),
      fault: [FINISH_PATH, { kind: 'gate', gate: shut() }],
      stage: ({ databaseCalled }) => databaseCalled(FINISH_PATH),
      fate: { status: 'failed', code: 'ai_misconfigured', partial: false, candidates: 0, modelCalls: 1, generationsCharged: 0 },
    },
    {
      when: 'when its text was refused, not yet persisted',
      model: refusal(),
      fault: [FINISH_PATH, { kind: 'gate', gate: shut() }],
      stage: ({ databaseCalled }) => databaseCalled(FINISH_PATH),
      fate: { status: 'failed', code: 'ai_refused', partial: false, candidates: 0, modelCalls: 1, generationsCharged: 1 },
    },
    {
      when: 'after all candidates of an endless stream',
      model: answer({ instead_of_end: 'silence' }),
      stage: ({ modelCalled }) => modelCalled,
      // Complete if the service had finished before the crash.
      fate: { status: 'completed', candidates: 20, modelCalls: 1, generationsCharged: 1 },
    },
  ];
}

function tooLate(): Case[] {
  const afterTwo = shut();
  return [
    {
      when: 'before the first candidate',
      model: gated(shut()),
      stage: ({ modelCalled, rowOpened }) => Promise.all([modelCalled, rowOpened()]),
      fate: { status: 'failed', code: 'ai_timeout', partial: false, candidates: 0, modelCalls: 1, generationsCharged: 0 },
    },
    {
      when: 'after two candidates',
      model: answer({ hold: { gate: afterTwo, after_candidates: 2 } }),
      stage: () => afterTwo.reached,
      fate: { ...kept, partial: true, candidates: 2 },
    },
  ];
}

/** Less than HEARTBEAT_MS. */
const TIMEOUT_MS = 5_000;

/** The tests, on any host. */
export function crashedGenerations<S extends Service>(host: CrashHost<S>): void {
  // Each case mostly waits for the alarm.
  describe('a crashed generation', { concurrency: true }, () => {
    const cases = stages().filter(({ hasAlarm }) => hasAlarm === undefined || host.hasAlarm);
    describe('resumed within its deadline', () => crashTogether(host, cases, { AI_IDLE_TIMEOUT_MS: '60000' }, 0));
    describe('resumed after its deadline', () => crashTogether(host, tooLate(), { AI_TIMEOUT_MS: String(TIMEOUT_MS) }, TIMEOUT_MS));
  });
}

/** One crash for all cases, which are resumed so long after they were accepted, or later. */
function crashTogether<S extends Service>(host: CrashHost<S>, cases: Case[], variables: Record<string, string>, after_ms: number): void {
  let service: S;
  const victims = new Map<Case, Victim>();
  before(async () => {
    service = await host.start({ RATE_LIMIT_CONCURRENT: '1', ...variables });
    // A request that waits at a gate of the database has a timeout: those stages are the last.
    for (const each of cases.toSorted((a, b) => Number(a.fault !== undefined) - Number(b.fault !== undefined))) {
      victims.set(each, await reachStage(service, each));
    }
    // This test is about the time itself.
    await pause(STORED_MS);
    service.world.gateway.clearFaults();
    await host.kill(service);
  });
  after(() => service.close());

  for (const each of cases) {
    it(`${each.when}: ${each.fate.status} after ${each.fate.modelCalls} model call(s)`, async () => {
      const victim = victims.get(each);
      assert.ok(victim, 'it has reached its stage');
      assert.equal((await victim.answer)?.body.code, each.reportedCode);
      await host.resume(service, victim.user, after_ms);
      await expectFate(service, victim.user, each.fate);
    });
  }
}

async function reachStage(service: Service, { model, fault, stage, clientLeaves }: Case): Promise<Victim> {
  const { gateway, openrouter } = service.world;
  const user = await signIn(service);
  const isTheirs = (path: string) => (request: { path: string; headers: Record<string, unknown> }) =>
    request.path === path && request.headers['authorization'] === `Bearer ${user.token}`;
  if (model !== undefined) openrouter.next(model);
  if (fault !== undefined) gateway.fail(isTheirs(fault[0]), fault[1]);

  const modelCalled = openrouter.arrived(openrouter.requests.total + 1);
  const leaving = new AbortController();
  const body = { input_text: lesson(), model: 'test/first' };
  const pending = sendRequest(service, 'POST', '/ai-sessions', { token: user.token, body, signal: leaving.signal });
  const victim: Victim = {
    user,
    answer: pending.catch(() => undefined),
    modelCalled,
    rowOpened: () => eventually('the row is open', async () => (await rowsOf(service, user)).sessions[0]),
    databaseCalled: (path) => gateway.requests.nthWhere(1, isTheirs(path)),
  };
  await Promise.all([modelCalled, stage(victim)]);
  if (clientLeaves) leaving.abort();
  return victim;
}

async function expectFate(service: Service, user: SignedIn, fate: Case['fate']): Promise<void> {
  const session = await eventually(
    'the session ends',
    async () => (await rowsOf(service, user)).sessions.find(({ status }) => status !== 'generating'),
    2 * HEARTBEAT_MS,
  );
  const calls = service.world.openrouter.requests.where(({ headers }) => headers['x-session-id'] === session['id']);
  const found = await read(service, user.token, session['id']);
  // The concurrent limit and the remaining quota: nothing was lost in the crash, nothing doubled.
  const later = await create(service, user.token);
  const { sessions, candidates, events } = await rowsOf(service, user);

  assert.equal(later.status, 201, later.text);
  assert.equal(remaining(later)['generations'], 50 - fate.generationsCharged - 1);
  assert.deepEqual(sessions.map(({ id }) => id), [session['id'], later.body.id]);
  assert.deepEqual([session['status'], session['error_code']], [fate.status, fate.code ?? null]);
  if (fate.partial !== undefined) assert.equal(session['partial'], fate.partial);
  const ofSession = (rows: typeof events) => rows.filter(({ session_id }) => session_id === session['id']);
  assert.deepEqual(ofSession(candidates).map(({ position }) => position), Array.from({ length: fate.candidates }, (_, n) => n));
  assert.equal(new Set(ofSession(candidates).map(({ front }) => front)).size, fate.candidates, 'no candidate is stored twice');
  assert.deepEqual(ofSession(events).map(({ type }) => type), [`ai_session.${fate.status}`]);
  assert.equal(found.body.candidates.length, fate.candidates);
  assert.equal(calls.length, fate.modelCalls);
  assert.equal(new Set(calls.map(({ raw }) => raw)).size, 1, 'the request depends on user, model and text alone');
}

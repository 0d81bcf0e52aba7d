// `kill -9` of workerd at each stage of a generation, and a start on the same storage. The contract, section 3: the object
// owns the generation, and its alarm takes it up again. (At random moments, under load: random_crashes.test.ts.)

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { type Answer, create, eventually, lesson, read, remaining, rowsOf, sendRequest, type SignedIn, signIn } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { type Fault, FINISH_PATH, SESSIONS_PATH } from '../support/gateway.ts';
import { answer, gated, httpError, type ModelBehaviour, refusal } from '../support/model_behaviour.ts';
import { startOnWorkerd, type WorkerdService } from './workerd.ts';

/** desk::HEARTBEAT_MS: a generation lies untouched for so long after a death, at most. */
const HEARTBEAT_MS = 10_000;
/**
 * A card that is complete for longer is not lost: four times generate::STORE_EVERY_MS, for a busy machine. Less than
 * call::REST_MS, after which a service that waits for the end of a stream is done with it.
 */
const STORED_MS = 1_000;

/** A user's one generation, on its way to the stage at which it will be killed. */
type Victim = {
  user: SignedIn;
  /** What the client is told, if it is told anything. */
  answer: Promise<Answer | undefined>;
  /** Stages. */
  modelCalled: Promise<unknown>;
  rowOpened: () => Promise<unknown>;
  databaseCalled: (path: string) => Promise<unknown>;
};

type Case = {
  when: string;
  /** How the model treats the first call; a second one gets a good answer. */
  model?: ModelBehaviour;
  /** What goes wrong with this user's requests to the database, until the death. */
  fault?: [path: string, fault: Fault];
  /** Waits until it is there. */
  stage: (victim: Victim) => Promise<unknown>;
  /** The client goes away before the death. */
  clientLeaves?: true;
  /** The code that the client is told before the death. */
  reportedCode?: string;
  fate: {
    status: 'completed' | 'failed';
    code?: string;
    /** Left out where the contract leaves it open. */
    partial?: boolean;
    candidates: number;
    modelCalls: number;
    unitsUsed: number;
  };
};

const whole = { status: 'completed', partial: false, candidates: 20, unitsUsed: 1 } as const;
/** Nothing of the first answer was there. */
const calledAgain: Case['fate'] = { ...whole, modelCalls: 2 };
/** All of it was there, and is not paid for twice. */
const kept: Case['fate'] = { ...whole, modelCalls: 1 };

/** What stands at it stands until the process dies. */
const shut = () => createGate();

function stages(): Case[] {
  const [afterOne, afterFive] = [shut(), shut()];
  return [
    {
      when: 'after its first heartbeat, with nothing heard of the model',
      model: gated(shut()),
      stage: () => pause(HEARTBEAT_MS + 1_000),
      fate: calledAgain,
    },
    {
      when: 'before its row is open and before the first card',
      model: gated(shut()),
      fault: [SESSIONS_PATH, { kind: 'gate', gate: shut() }],
      stage: ({ modelCalled, databaseCalled }) => Promise.all([modelCalled, databaseCalled(SESSIONS_PATH)]),
      fate: calledAgain,
    },
    {
      when: 'when its row is open and nobody has heard of it',
      model: gated(shut()),
      fault: [SESSIONS_PATH, { kind: 'gate', gate: shut(), kept: true }],
      stage: ({ modelCalled, rowOpened }) => Promise.all([modelCalled, rowOpened()]),
      fate: calledAgain,
    },
    {
      when: 'before the first card',
      model: gated(shut()),
      stage: ({ modelCalled, rowOpened }) => Promise.all([modelCalled, rowOpened()]),
      fate: calledAgain,
    },
    {
      when: 'before the first card, when its client has left',
      model: gated(shut()),
      stage: ({ modelCalled, rowOpened }) => Promise.all([modelCalled, rowOpened()]),
      clientLeaves: true,
      fate: calledAgain,
    },
    {
      when: 'after one card, with silence behind it',
      model: answer({ hold: { gate: afterOne, after_candidates: 1 } }),
      stage: () => afterOne.reached,
      fate: { ...kept, partial: true, candidates: 1 },
    },
    {
      when: 'after five cards that came slowly',
      model: answer({ hold: { gate: afterFive, after_candidates: 5 }, pause_ms: 10 }),
      stage: () => afterFive.reached,
      fate: { ...kept, partial: true, candidates: 5 },
    },
    {
      when: 'while its end is on its way to the database',
      fault: [FINISH_PATH, { kind: 'gate', gate: shut() }],
      stage: ({ databaseCalled }) => databaseCalled(FINISH_PATH),
      fate: kept,
    },
    {
      when: 'when its end is written and nobody has heard of it',
      fault: [FINISH_PATH, { kind: 'gate', gate: shut(), kept: true }],
      stage: ({ databaseCalled }) => databaseCalled(FINISH_PATH),
      fate: kept,
    },
    {
      when: 'when the database has not taken its end',
      fault: [FINISH_PATH, { kind: 'answer', status: 503 }],
      stage: ({ answer }) => answer,
      reportedCode: 'database_error',
      fate: kept,
    },
    {
      when: 'when it has failed and that is not written',
      model: httpError(402),
      fault: [FINISH_PATH, { kind: 'gate', gate: shut() }],
      stage: ({ databaseCalled }) => databaseCalled(FINISH_PATH),
      fate: { status: 'failed', code: 'ai_misconfigured', partial: false, candidates: 0, modelCalls: 1, unitsUsed: 0 },
    },
    {
      when: 'when its text was refused and that is not written',
      model: refusal(),
      fault: [FINISH_PATH, { kind: 'gate', gate: shut() }],
      stage: ({ databaseCalled }) => databaseCalled(FINISH_PATH),
      fate: { status: 'failed', code: 'ai_refused', partial: false, candidates: 0, modelCalls: 1, unitsUsed: 1 },
    },
    {
      when: 'when all cards are there and the stream has no end',
      model: answer({ instead_of_end: 'silence' }),
      stage: ({ modelCalled }) => modelCalled,
      // Whole if the service was done with it before the death.
      fate: { status: 'completed', candidates: 20, modelCalls: 1, unitsUsed: 1 },
    },
  ];
}

function tooLate(): Case[] {
  const afterTwo = shut();
  return [
    {
      when: 'before the first card',
      model: gated(shut()),
      stage: ({ modelCalled, rowOpened }) => Promise.all([modelCalled, rowOpened()]),
      fate: { status: 'failed', code: 'ai_timeout', partial: false, candidates: 0, modelCalls: 1, unitsUsed: 0 },
    },
    {
      when: 'after two cards',
      model: answer({ hold: { gate: afterTwo, after_candidates: 2 } }),
      stage: () => afterTwo.reached,
      fate: { ...kept, partial: true, candidates: 2 },
    },
  ];
}

// Each of them waits, most of the time, for the service's alarm.
describe('a generation that is killed', { concurrency: true }, () => {
  describe('and taken up inside its deadline', () => killedTogether(stages(), { AI_IDLE_TIMEOUT_MS: '60000' }));
  describe('and taken up after its deadline', () => killedTogether(tooLate(), { AI_TIMEOUT_MS: '5000' }));
});

/** One death for all of them. */
function killedTogether(cases: Case[], variables: Record<string, string>): void {
  let service: WorkerdService;
  const victims = new Map<Case, Victim>();
  before(async () => {
    service = await startOnWorkerd({ RATE_LIMIT_CONCURRENT: '1', ...variables });
    for (const each of cases) victims.set(each, await bringToItsStage(service, each));
    // The time itself is what is promised here.
    await pause(STORED_MS);
    service.world.gateway.clearFaults();
    await service.kill();
  });
  after(() => service.close());

  for (const each of cases) {
    it(`${each.when}: ${each.fate.status}, after ${each.fate.modelCalls} call(s) of the model, with one event`, async () => {
      const victim = victims.get(each);
      assert.ok(victim, 'it was brought to its stage');
      assert.equal((await victim.answer)?.body.code, each.reportedCode);
      await expectFate(service, victim.user, each.fate);
    });
  }
}

async function bringToItsStage(service: WorkerdService, { model, fault, stage, clientLeaves }: Case): Promise<Victim> {
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

async function expectFate(service: WorkerdService, user: SignedIn, fate: Case['fate']): Promise<void> {
  const session = await eventually(
    'the session ends',
    async () => (await rowsOf(service, user)).sessions.find(({ status }) => status !== 'generating'),
    2 * HEARTBEAT_MS,
  );
  const calls = service.world.openrouter.requests.where(({ headers }) => headers['x-session-id'] === session['id']);
  const found = await read(service, user.token, session['id']);
  // A place among those that run, and what is left of the units: nothing was lost with the process, nothing doubled.
  const later = await create(service, user.token);
  const { sessions, candidates, events } = await rowsOf(service, user);

  assert.equal(later.status, 201, later.text);
  assert.equal(remaining(later)['generations'], 50 - fate.unitsUsed - 1);
  assert.deepEqual(sessions.map(({ id }) => id), [session['id'], later.body.id]);
  assert.deepEqual([session['status'], session['error_code']], [fate.status, fate.code ?? null]);
  if (fate.partial !== undefined) assert.equal(session['partial'], fate.partial);
  const ofSession = (rows: typeof events) => rows.filter(({ session_id }) => session_id === session['id']);
  assert.deepEqual(ofSession(candidates).map(({ position }) => position), Array.from({ length: fate.candidates }, (_, n) => n));
  assert.equal(new Set(ofSession(candidates).map(({ front }) => front)).size, fate.candidates, 'no card is there twice');
  assert.deepEqual(ofSession(events).map(({ type }) => type), [`ai_session.${fate.status}`]);
  assert.equal(found.body.candidates.length, fate.candidates);
  assert.equal(calls.length, fate.modelCalls);
  assert.equal(new Set(calls.map(({ raw }) => raw)).size, 1, 'what is sent depends on user, model and text alone');
}

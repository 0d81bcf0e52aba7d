// `kill -9` of a host's process at random moments of generations under load, several times on the same storage: each accepted session
// ends once, no charge is lost or doubled, nothing is billed twice, and a stream that is resumed after each crash is one
// list.
//
// The seed is printed and repeats the choices, the moments only nearly. Longer, by hand:
//   CRASHES=40 CRASH_SEED=7 npx node --test tests/hosts/random_crashes.test.ts   (after npm run build; npx takes the project's Node)

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import {
  type Answer,
  candidateOf,
  create,
  createStream,
  eventually,
  expectList,
  lesson,
  NoStream,
  ofTheList,
  remaining,
  type Row,
  sendRequest,
  type Service,
  type SignedIn,
  signIn,
  subscribe,
} from '../service/service.ts';
import { isEnd, type StreamEvent } from '../support/event_stream.ts';
import { createGate } from '../support/gate.ts';
import { FINISH_PATH, type GatewayRequest } from '../support/gateway.ts';
import {
  answer,
  contentFilter,
  cutAfter,
  cutBeforeHeaders,
  errorEvent,
  gated,
  httpError,
  type ModelBehaviour,
  refusal,
} from '../support/model_behaviour.ts';
import { type Choices, seededChoices, seedFrom } from '../support/seeded_random.ts';
import { USER_STATE_PATH } from './isolates.ts';

const CRASHES = Number(process.env['CRASHES'] ?? 6);
const USERS = 8;
const CONCURRENT = 6;
const GENERATIONS = 10_000;

/** HEARTBEAT_MS, the model calls after it, and the backoff of database writes. */
const ALL_ENDED_MS = 10_000 + 30_000;
/** A host whose process can be killed under load. */
export type LoadedHost<S extends Service> = {
  start(variables: Record<string, string>): Promise<S>;
  /** Kills a process, and starts another one on the same storage. */
  crash(service: S, choices: Choices): Promise<void>;
  /** Resumes what the crashes have left, after the load. */
  resume(service: S, users: SignedIn[]): Promise<void>;
  /** Bytes sent this long before a crash have been read and stored (HOLD_MS), on a busy machine too. */
  surely_stored_ms: number;
};

/** The response of Supabase's platform in place of an isolate that was killed. */
const WORKER_LIMIT = 546;

/** Far more than three deliveries of a request take. */
const STATE_FAILS_EVERY_MS = 4_000;

/** One call at the model server. */
type Call = {
  session: string;
  began_ms: number;
  /** Whether the behaviour sends a whole answer. */
  isGood: boolean;
  /** Which side ended it, and when. */
  end?: 'answered' | 'client left' | 'server cut';
  over_ms?: number;
};

/** The events of one generation, over all connections of a subscriber. */
type Subscription = { user: SignedIn; id: string; events: StreamEvent[]; connections: number; firstCandidate_ms?: number };

const seed = seedFrom('CRASH_SEED');
const choices = seededChoices(seed);

/** The tests, on any host. */
export function randomCrashes<S extends Service>(host: LoadedHost<S>): void {
  describe(`${CRASHES} crashes under load (CRASH_SEED=${seed})`, () => {
    let service: S;
    let users: SignedIn[];
    let sessions: Row[];
    let candidates: Row[];
    let events: Row[];
    const crashes_ms: number[] = [];
    const calls: Call[] = [];
    /** The time of the first completion request, by session. */
    const completing_ms = new Map<string, number>();
    const answers: Answer[] = [];
    const subscriptions: Subscription[] = [];
    /** Requests whose connection broke in a crash. */
    let cutByCrash = 0;
    /** Connections that broke without a crash. */
    const broken: string[] = [];
    /** When a request for the state of a user has failed last. */
    const failed_ms = new Map<string, number>();

    before(async () => {
      service = await host.start({
        RATE_LIMIT_BURST: '1000000/3600',
        RATE_LIMIT_GENERATIONS: `${GENERATIONS}/86400`,
        RATE_LIMIT_CONCURRENT: String(CONCURRENT),
      });
      users = await Promise.all(Array.from({ length: USERS }, () => signIn(service)));
      service.world.openrouter.always(recorded(calls));
      injectDatabaseFaults();
      await loadAndKill();
      service.world.gateway.clearFaults();
      await host.resume(service, users);
      await allEnded();
      const { sql } = service.world;
      [sessions, candidates, events] = await Promise.all([
        sql<Row>('select * from ai_generation_sessions'),
        sql<Row>('select * from flashcard_candidates order by session_id, position'),
        sql<Row>('select * from event_logs'),
      ]);
      const by = (status: string) => sessions.filter((session) => session['status'] === status).length;
      console.log(
        `${by('completed')} completed, ${by('failed')} failed, ${calls.length} model calls, ` +
          `${answers.filter(({ status }) => status === 201).length} with candidates, ${subscriptions.length} streams ` +
          `(${subscriptions.filter(({ connections }) => connections > 1).length} resumed), seed ${seed}`,
      );
    });
    after(() => service.close());

    it('the crashes met requests and streams', () => {
      assert.equal(crashes_ms.length, CRASHES);
      assert.ok(cutByCrash >= CRASHES, `${cutByCrash} requests were cut by ${CRASHES} crashes`);
      assert.ok(subscriptions.some(({ connections }) => connections > 1), 'a stream was cut, and went on');
    });

    it('a response is one of the contract, or its connection broke in a crash', () => {
      assert.deepEqual(broken, []);
      const ends = subscriptions.map(({ events }) => events.at(-1)?.data);
      const outcomes = new Set([
        ...answers.map(({ status, body }) => `${status} ${body.code ?? ''}`.trim()),
        ...ends.filter(({ code }) => code !== undefined).map(({ status, code }) => `${status} ${code}`),
      ]);
      const allowed = ['201', '429 rate_limited', '500 ai_unavailable', '500 ai_refused', '500 ai_timeout', '500 database_error'];
      assert.deepEqual([...outcomes].filter((one) => !allowed.includes(one)), []);
    });

    it('every session ended', () => {
      const called = new Set(calls.map(({ session }) => session));
      const there = new Set(sessions.map(({ id }) => id));
      assert.deepEqual([...called].filter((id) => !there.has(id)), [], 'sessions with a model call and without a row');
      assert.deepEqual(sessions.filter(({ status }) => status === 'generating'), []);
      assert.deepEqual(sessions.filter(({ ended_at }) => ended_at === null), []);
    });

    it('every session has one event', () => {
      const loggedTypes = new Map<string, string[]>();
      for (const { session_id, type } of events) {
        if (session_id !== null) loggedTypes.set(session_id, [...(loggedTypes.get(session_id) ?? []), type]);
      }
      const wrong = sessions.filter(({ id, status }) => loggedTypes.get(id)?.join() !== `ai_session.${status}`);
      assert.deepEqual(wrong.map(({ id, status }) => [id, status, loggedTypes.get(id)]), []);
      assert.equal(loggedTypes.size, sessions.length);
    });

    it('a completed session has its candidates in order, a failed one none', () => {
      for (const { id, status } of sessions) {
        const own = candidates.filter(({ session_id }) => session_id === id);
        assert.deepEqual(own.map(({ position }) => position), own.map((_, n) => n), id);
        assert.equal(new Set(own.map(({ front }) => front)).size, own.length, id);
        assert.equal(own.length > 0, status === 'completed', `${id} is ${status} and has ${own.length} candidates`);
      }
    });

    it('the candidates of a response are the stored ones', () => {
      for (const { body } of answers.filter(({ status }) => status === 201)) {
        const stored = candidates.filter(({ session_id }) => session_id === body.id);
        assert.deepEqual(stored.map(candidateOf), body.candidates);
      }
    });

    it('a stream over many connections is one list of the stored candidates', async () => {
      for (const { user, id, events } of subscriptions) {
        const sent = events.filter(({ event }) => event === 'candidate');
        const end = events.at(-1);
        const isNotStored = end?.data.code === 'database_error' && sent.length > 0;
        // That error takes the place of the last candidate: a later subscriber receives the end itself.
        const later = await subscribe(service, user.token, id, isNotStored ? end?.id : undefined);
        const list = isNotStored ? [...events.slice(0, -1), ...(await later.whole())] : await later.whole();
        expectList(list, sent.length, list.at(-1)?.event === 'done' ? 'done' : 'error');
        if (!isNotStored) assert.deepEqual(events.map(ofTheList), list.map(ofTheList));
        const stored = candidates.filter(({ session_id }) => session_id === id);
        assert.deepEqual(
          sent.map(({ data: { index, id } }) => [index, id]),
          stored.map(({ position, id }) => [position, id]),
          id,
        );
      }
    });

    it('no model is called again after a candidate was sent', () => {
      const calledAgain = subscriptions.filter(({ id, firstCandidate_ms = Number.POSITIVE_INFINITY }) =>
        calls.some((call) => call.session === id && call.began_ms > firstCandidate_ms),
      );
      assert.deepEqual(calledAgain.map(({ id }) => id), []);
    });

    it('no model is called again after the candidates are complete', () => {
      const again = (session: string, since_ms: number) =>
        calls.filter((call) => call.session === session && call.began_ms > since_ms).length;
      const paidTwice = [...completing_ms].filter(([session, since_ms]) => again(session, since_ms) > 0);
      assert.deepEqual(paidTwice, [], 'sessions with a model call after their end was written');

      const stored = calls.filter(isSurelyStored);
      const beforeLast = stored.filter(({ over_ms = 0 }) => over_ms < (crashes_ms.at(-1) ?? 0));
      assert.ok(beforeLast.length > 0, 'an answer was stored before a crash');
      assert.deepEqual(stored.filter(({ session, over_ms = 0 }) => again(session, over_ms) > 0), []);
    });

    it('the charged generations are the completed and the refused ones', async () => {
      for (const user of users) assert.equal(await generationsCharged(user), generationsDue(sessions, user));
    });

    it('the concurrent limit of each user is free again', async () => {
      const { openrouter } = service.world;
      const gate = createGate();
      openrouter.reset();
      openrouter.always(gated(gate));
      const running = users.flatMap(({ token }) => Array.from({ length: CONCURRENT }, () => create(service, token)));
      await openrouter.arrived(running.length);
      const oneMore = await Promise.all(users.map(({ token }) => create(service, token)));
      gate.open();
      assert.deepEqual(oneMore.map(({ body }) => body['violated-policies']), users.map(() => ['concurrent']));
      assert.deepEqual((await Promise.all(running)).map(({ status }) => status), running.map(() => 201));
    });

    /** Sends requests while the process is killed repeatedly. */
    async function loadAndKill(): Promise<void> {
      let up: Promise<void> = Promise.resolve();
      let isOver = false;
      const one = async (user: SignedIn) => {
        const began_ms = Date.now();
        const leaving = new AbortController();
        const body = { input_text: lesson(choices.between(16, 40)), model: 'test/first' };
        const pending = sendRequest(service, 'POST', '/ai-sessions', { token: user.token, body, signal: leaving.signal });
        if (choices.chance(0.1)) setTimeout(() => leaving.abort(), choices.between(1, 500));
        try {
          const response = await pending;
          answers.push(response);
          // A pause, where crashed generations use the concurrent limit.
          if (response.status === 429) await pause(100);
        } catch (error) {
          if (leaving.signal.aborted) return;
          if (crashes_ms.some((crash_ms) => crash_ms >= began_ms)) cutByCrash += 1;
          else broken.push(String(error));
        }
      };
      /** Subscribes until the end, and reconnects after each crash. */
      const readStream = async (user: SignedIn) => {
        const began_ms = Date.now();
        const body = { input_text: lesson(choices.between(16, 40)), model: 'test/first' };
        const one: Subscription = { user, id: '', events: [], connections: 0 };
        while (!isEnd(one.events.at(-1))) {
          try {
            await up;
            const isFirst = one.connections === 0;
            const stream = await (isFirst
              ? createStream(service, user.token, body)
              : subscribe(service, user.token, one.id, one.events.at(-1)?.id));
            one.connections += 1;
            while (!isEnd(one.events.at(-1))) {
              const event = await stream.next(ALL_ENDED_MS);
              one.events.push(event);
              if (event.event === 'session') one.id = event.data.id;
              if (event.event === 'candidate') one.firstCandidate_ms ??= Date.now();
            }
          } catch (error) {
            if (error instanceof NoStream && error.answer.status !== WORKER_LIMIT) {
              answers.push(error.answer);
              if (error.answer.status === 429) await pause(100);
              return;
            }
            if (crashes_ms.some((crash_ms) => crash_ms >= began_ms)) cutByCrash += 1;
            else broken.push(String(error));
            // It is unknown whether the request was accepted.
            if (one.events.length === 0) return;
          }
        }
        subscriptions.push(one);
      };
      const load = users.map(async (user) => {
        while (!isOver) {
          await up;
          await (choices.chance(0.4) ? readStream(user) : one(user));
        }
      });
      for (let n = 0; n < CRASHES; n += 1) {
        await pause(choices.between(300, 2_500));
        // The crashes before may follow each other too soon for that.
        if (n === CRASHES - 1) await eventually('an answer is stored', () => calls.some(wasStored) || undefined, ALL_ENDED_MS);
        crashes_ms.push(Date.now());
        up = host.crash(service, choices);
        await up;
      }
      isOver = true;
      await Promise.all(load);
    }

    /** Whether the whole answer was read, with no crash so near that a part may be lost. */
    function isSurelyStored({ isGood, end, over_ms = 0 }: Call): boolean {
      // Also of a crash just before: the model server sends the rest to a closed connection.
      return isGood && end === 'answered' && !crashes_ms.some((crash_ms) => Math.abs(crash_ms - over_ms) < host.surely_stored_ms);
    }

    /** The same, for a crash now. */
    function wasStored(call: Call): boolean {
      return isSurelyStored(call) && Date.now() - (call.over_ms ?? 0) >= host.surely_stored_ms;
    }

    /** Delays, refusals, lost responses: so that crashes meet every stage of a write. */
    function injectDatabaseFaults(): void {
      const { gateway } = service.world;
      const sometimes = (probability: number) => (request: { method: string; path: string }) =>
        request.method === 'POST' && request.path.startsWith('/rest/v1/') && choices.chance(probability);
      // The first matcher: it sees every request and sets no fault.
      gateway.fail((request) => {
        if (request.path !== FINISH_PATH) return false;
        const { session } = JSON.parse(request.raw) as { session: { id: string } };
        if (!completing_ms.has(session.id)) completing_ms.set(session.id, Date.now());
        return false;
      }, { kind: 'hang' });
      const fails = (request: GatewayRequest) => sometimes(0.02)(request) && mayFail(request);
      gateway.fail(fails, { kind: 'answer', status: 503 });
      gateway.fail(fails, { kind: 'cut', kept: true });
      gateway.fail(sometimes(0.1), { kind: 'delay', ms: 700, kept: true });
      gateway.fail(sometimes(0.2), { kind: 'delay', ms: 300 });
      gateway.fail(sometimes(0.3), { kind: 'delay', ms: 50 });
    }

    /** A request for user state is sent three times within this time; where all fail, the database is down, which is another test. */
    function mayFail({ path, raw }: GatewayRequest): boolean {
      if (path !== USER_STATE_PATH) return true;
      const user = users.find(({ id }) => raw.includes(id))?.id ?? '';
      if (Date.now() - (failed_ms.get(user) ?? 0) < STATE_FAILS_EVERY_MS) return false;
      failed_ms.set(user, Date.now());
      return true;
    }

    async function generationsCharged({ token }: SignedIn): Promise<number> {
      // Counts for the burst alone, and its response has the other limits.
      return GENERATIONS - (remaining(await create(service, token, '{'))['generations'] ?? Number.NaN);
    }

    /** Every row is ended and every reservation closed, with or without a row. */
    function allEnded(): Promise<true> {
      return eventually(
        'all accepted sessions have ended',
        async () => {
          const rows = await service.world.sql<Row>('select user_id, status, error_code from ai_generation_sessions');
          if (rows.some(({ status }) => status === 'generating')) return undefined;
          for (const user of users) if ((await generationsCharged(user)) !== generationsDue(rows, user)) return undefined;
          return true;
        },
        ALL_ENDED_MS,
      );
    }
  });
}

function generationsDue(sessions: Row[], user: SignedIn): number {
  const ofUser = sessions.filter(({ user_id }) => user_id === user.id);
  return ofUser.filter(({ status, error_code }) => status === 'completed' || error_code === 'ai_refused').length;
}

/** Mostly good answers, slow or fast, and some failures; all calls are recorded. */
function recorded(calls: Call[]): ModelBehaviour {
  return async (turn) => {
    const call: Call = { session: String(turn.request.headers['x-session-id']), began_ms: Date.now(), isGood: false };
    calls.push(call);
    void turn.request.over.then((end) => {
      Object.assign(call, { end, over_ms: Date.now() });
    });
    const candidates = choices.between(1, 20);
    const good = () => {
      call.isGood = true;
      return answer({ candidates, pause_ms: choices.between(0, 6) });
    };
    const behaviour = choices.pick<() => ModelBehaviour>([
      [16, good],
      [3, () => httpError(503)],
      [2, () => cutAfter(choices.between(1, 10))],
      [1, () => cutBeforeHeaders],
      [1, () => errorEvent({ after_candidates: choices.between(0, 3) })],
      [1, () => contentFilter(2)],
      [1, () => refusal()],
    ])();
    if (choices.chance(0.3)) await turn.pause(choices.between(1, 1_500));
    await behaviour(turn);
  };
}

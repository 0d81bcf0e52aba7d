// A limit in US dollars under 200 concurrent requests of one user, with random costs and `kill -9` of workerd in between: the bill of
// the model API is never above the limit, and no request is refused while less than 95 % of it is spent or reserved.
//
// The seed is printed and repeats the choices, the moments only nearly:
//   SPEND_SEED=7 npx node --test tests/hosts/spend.test.ts   (after npm run build; npx takes the project's Node)

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { create, eventually, lesson, type Row, type SignedIn, signIn } from '../service/service.ts';
import { answer, cutAfter, httpError, type ModelBehaviour } from '../support/model_behaviour.ts';
import { seededChoices, seedFrom } from '../support/seeded_random.ts';
import { startOnWorkerd, type WorkerdService } from './workerd.ts';

const REQUESTS = 200;
const CRASHES = 3;
const CONCURRENT = 20;
/** Amounts are nanodollars here. A reservation is 0.9 % of the limit. */
const LIMIT = 6e9;
/** No request is refused while less than this share of the limit is spent or reserved. */
const SHARE_MIN = 0.95;
/** The heartbeat after a crash, and the model calls after it. */
const ALL_ENDED_MS = 40_000;
/** A report that was sent this near to a crash may not have been stored. */
const NEAR_CRASH_MS = 1_000;

const body = { input_text: lesson(16), model: 'test/first' };
/** The most that a call can cost with AI_MAX_PRICE=1/5: its bytes, an eighth more and 6000 tokens in, 9000 out. */
const TEXT_BYTES = Buffer.byteLength(body.input_text);
const COST_MAX = (6000 + TEXT_BYTES + Math.floor(TEXT_BYTES / 8) + 9000 * 5) * 1000;

/** A call at the model API. */
type Call = {
  session: string;
  began_ms: number;
  /** What the model API bills, whatever becomes of the connection. */
  billed: number;
  /** Whether the answer reports it. */
  isReported: boolean;
  over_ms?: number;
};

const seed = seedFrom('SPEND_SEED');
const choices = seededChoices(seed);
const sum = (amounts: number[]) => amounts.reduce((total, amount) => total + amount, 0);
const share = (amount: number) => `${((amount / LIMIT) * 100).toFixed(2)} %`;

describe(`${REQUESTS} concurrent requests with a limit in dollars, and ${CRASHES} crashes (SPEND_SEED=${seed})`, () => {
  let service: WorkerdService;
  let user: SignedIn;
  let up: Promise<void> = Promise.resolve();
  const calls: Call[] = [];
  const crashes_ms: number[] = [];
  /** The calls that each crash met. */
  const metByCrash: number[] = [];
  const outcomes = new Map<string, number>();
  /** What was spent or reserved at each refusal by `spend`. */
  const countedAtRefusal: number[] = [];
  let cutByCrash = 0;
  /** When the host was up again after its last crash. */
  let up_ms = 0;
  let sessions: Row[] = [];
  const open = () => calls.filter(({ over_ms }) => over_ms === undefined);
  const spent = () => sum(calls.map(({ billed }) => billed));

  before(async () => {
    service = await startOnWorkerd({
      RATE_LIMIT_SPEND: `${LIMIT / 1e9}/86400`,
      AI_MAX_PRICE: '1/5',
      RATE_LIMIT_BURST: '1000000/86400',
      RATE_LIMIT_GENERATIONS: '1000000/86400',
      RATE_LIMIT_ATTEMPTS: '1000000/86400',
      RATE_LIMIT_CONCURRENT: String(CONCURRENT),
    });
    user = await signIn(service);
    service.world.openrouter.always(billing(calls));
    const load = Array.from({ length: REQUESTS }, () => createOne());
    for (let n = 0; n < CRASHES; n += 1) {
      const count = calls.length + choices.between(10, 30);
      await eventually('calls are made', () => (calls.length >= count && open().length > 0) || undefined, ALL_ENDED_MS);
      crashes_ms.push(Date.now());
      metByCrash.push(open().length);
      up_ms = Number.POSITIVE_INFINITY;
      up = service.kill();
      await up;
      up_ms = Date.now();
    }
    await Promise.all(load);
    // What is left is spent, one generation after another.
    await createUntilRefused();
    await eventually('all sessions have ended', noneIsGenerating, ALL_ENDED_MS);
    await createUntilRefused();
    sessions = await service.world.sql<Row>('select id, created_at, ended_at from ai_generation_sessions');
    console.log(
      `billed ${spent() / 1e9} of ${LIMIT / 1e9} dollars (${share(spent())}); spent or reserved at the end: ${share(counted())}; ` +
        `${sessions.length} sessions, ${calls.length} model calls, ${cutByCrash} requests cut by ${CRASHES} crashes, responses ${[...outcomes].map(([name, n]) => `${n} ${name}`).join(', ')}; ` +
        `${countedAtRefusal.length} refused at ${share(Math.min(...countedAtRefusal))} and more; seed ${seed}`,
    );
  });
  after(() => service.close());

  it('the bill of the model API is not above the limit', () => {
    assert.ok(spent() <= LIMIT, `${spent()} of ${LIMIT}`);
  });

  it('no request is refused while less than 95 % is spent or reserved', () => {
    assert.ok(countedAtRefusal.length > 0, 'the limit was reached');
    assert.ok(Math.min(...countedAtRefusal) >= SHARE_MIN * LIMIT, share(Math.min(...countedAtRefusal)));
  });

  it('the bill counts, and the maximum of each call that reported none', () => {
    assert.ok(counted() >= spent(), `${counted()} is less than the bill of ${spent()}`);
    const isNear = ({ began_ms, over_ms = Number.POSITIVE_INFINITY }: Call, crash_ms: number) =>
      began_ms <= crash_ms && crash_ms <= over_ms + NEAR_CRASH_MS;
    const isNearCrash = (call: Call) => crashes_ms.some((crash_ms) => isNear(call, crash_ms));
    // A reported cost is rounded up to a nanodollar.
    const ofCalls = sum(calls.map((call) => (call.isReported && !isNearCrash(call) ? call.billed + 1 : COST_MAX)));
    // A crash between a reservation and its call.
    const isBetweenCalls = ({ id, created_at, ended_at }: Row, crash_ms: number) =>
      created_at <= crash_ms && crash_ms <= ended_at && !calls.some((call) => call.session === id && isNear(call, crash_ms));
    const withoutCall = crashes_ms.flatMap((crash_ms) => sessions.filter((session) => isBetweenCalls(session, crash_ms)));
    const atMost = ofCalls + withoutCall.length * COST_MAX;
    assert.ok(counted() <= atMost, `${counted()} is more than ${atMost}`);
  });

  it('each crash met calls, and every other response is a regular one', () => {
    assert.ok(metByCrash.every((count) => count > 0), `calls at each crash: ${metByCrash}`);
    assert.ok(cutByCrash >= CRASHES, `${cutByCrash} requests were cut`);
    const regular = ['201', '429 spend', '429 concurrent', '500 ai_unavailable', '500 ai_timeout'];
    assert.deepEqual([...outcomes.keys()].filter((name) => !regular.includes(name)), []);
  });

  /** What is spent or reserved, when nothing is in progress. */
  function counted(): number {
    return countedAtRefusal.at(-1) ?? Number.NaN;
  }

  /** Sends a request; again after a refusal by `concurrent`, and after a crash. Returns whether it was refused by `spend`. */
  async function createOne(): Promise<'refused' | 'responded'> {
    for (let tries = 1; ; tries += 1) {
      await up;
      const began_ms = Date.now();
      try {
        const response = await create(service, user.token, body);
        const policies: string[] = response.body['violated-policies'] ?? [];
        const isSpend = policies.includes('spend');
        const name = `${response.status} ${isSpend ? 'spend' : (policies[0] ?? response.body.code ?? '')}`.trim();
        outcomes.set(name, (outcomes.get(name) ?? 0) + 1);
        if (isSpend) {
          countedAtRefusal.push(LIMIT - Math.round(Number(response.body.spend.remaining) * 1e9));
          return 'refused';
        }
        if (response.status !== 429) return 'responded';
        await pause(choices.between(300, 1_000) * Math.min(tries, 5));
      } catch (error) {
        if (began_ms >= up_ms) throw error;
        cutByCrash += 1;
      }
    }
  }

  async function createUntilRefused(): Promise<void> {
    while ((await createOne()) === 'responded');
  }

  async function noneIsGenerating(): Promise<true | undefined> {
    const rows = await service.world.sql<Row>(`select id from ai_generation_sessions where status = 'generating'`);
    return rows.length === 0 || undefined;
  }
});

/** Random costs up to the maximum, mostly reported. All calls are recorded, and billed in full. */
function billing(calls: Call[]): ModelBehaviour {
  return async (turn) => {
    const call: Call = { session: String(turn.request.headers['x-session-id']), began_ms: Date.now(), billed: choices.between(0, COST_MAX), isReported: false };
    calls.push(call);
    void turn.request.over.then(() => {
      call.over_ms = Date.now();
    });
    const cost = call.billed / 1e9;
    const behaviour = choices.pick<() => ModelBehaviour>([
      [17, () => {
        call.isReported = true;
        return answer({ candidates: choices.between(1, 3), content_bytes: 200, cost });
      }],
      [1, () => answer({ candidates: 1, content_bytes: 200, cost: null })],
      [1, () => httpError(503)],
      [1, () => cutAfter(1)],
    ])();
    if (choices.chance(0.3)) await turn.pause(choices.between(1, 300));
    await behaviour(turn);
  };
}

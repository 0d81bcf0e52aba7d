// A load run: users, requests, responses, and their reconciliation. Bounded in time and in count, on this machine only.

import { create, eventually, type Row, type Service, signIn, type SignedIn } from '../service/service.ts';
import { FINISH_PATH, SESSIONS_PATH } from '../support/gateway.ts';
import { seededChoices } from '../support/seeded_random.ts';
import { accountFor, type Limits, type Rows } from './reconciliation.ts';
import { processFigures, type ProcessFigures } from './figures.ts';
import { byText, type Calls } from './model_behaviours.ts';
import { type Answered, choose, type Known, send, word } from './requests.ts';

/** The parameters of a run. */
export type Plan = { requests: number; seed: number };

/** A host for a load run. */
export type LoadedHost<S extends Service> = {
  /** The name of its program. */
  program: string;
  start(): Promise<S>;
  /** The processes of the service. */
  pids(service: S): number[];
};

/** The result of a run. */
export type Outcome = {
  program: string;
  /** The deviations, in sentences; empty when all is accounted for. */
  wrong: string[];
  answered: Answered[];
  duration_ms: number;
  before: ProcessFigures;
  after: ProcessFigures;
  modelCalls: number;
  rows: Rows;
};

export const CONCURRENCY = 32;
const USERS_MAX = 100;
/** Average requests of a user: enough for some users to meet their limits, also in a short run. */
const REQUESTS_PER_USER = 30;
/** Far more than a slow machine needs for a request. */
const REQUEST_MS_MAX = 200;

export const LIMITS: Limits = {
  burst: { count: 25, window_s: 60 },
  generations: { count: 12, window_s: 3600 },
  concurrent: 2,
};

/** The variables of the service under load. */
export const VARIABLES = {
  RATE_LIMIT_BURST: `${LIMITS.burst.count}/${LIMITS.burst.window_s}`,
  RATE_LIMIT_GENERATIONS: `${LIMITS.generations.count}/${LIMITS.generations.window_s}`,
  RATE_LIMIT_CONCURRENT: String(LIMITS.concurrent),
  // Longer than this machine may be busy: only a silent model must cause the timeout.
  AI_IDLE_TIMEOUT_MS: '6000',
  AI_MAX_ATTEMPTS: '2',
};

/** Runs the load against a service of that host. */
export async function runLoad<S extends Service>(host: LoadedHost<S>, service: S, { requests, seed }: Plan): Promise<Outcome> {
  const choices = seededChoices(seed);
  const count = Math.max(2, Math.min(USERS_MAX, Math.round(requests / REQUESTS_PER_USER)));
  const users: SignedIn[] = [];
  for (let n = 0; n < count; n += 1) users.push(await signIn(service));
  const calls: Calls = { all: [], mostAtOnce: 0 };
  service.world.openrouter.always(byText(calls));
  injectDatabaseFaults(service, choices.chance);

  const wrong: string[] = [];
  const answered: Answered[] = [];
  const known: Known[] = [];
  let left = requests;
  const before = await processFigures(host.pids(service));
  const began_ms = performance.now();
  const client = async () => {
    while (left > 0) {
      left -= 1;
      if (performance.now() - began_ms > requests * REQUEST_MS_MAX) throw new Error('the run takes too long');
      const chosen = choose(service, choices, users, known);
      try {
        const one = await send(service, chosen);
        answered.push(one);
        if (one.answer.status === 201 && one.user) known.push({ id: one.answer.body.id, user: one.user });
        if (!one.allowed.includes(word(one.answer))) {
          wrong.push(`${one.kind} was answered ${word(one.answer)}, allowed: ${one.allowed.join(', ')}: ${one.answer.text}`);
        }
      } catch (error) {
        wrong.push(`${chosen.kind} was not answered: ${error}`);
      }
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, client));
  const duration_ms = performance.now() - began_ms;
  const after = await processFigures(host.pids(service));

  service.world.gateway.clearFaults();
  const rows = await endedRows(service);
  const generationsLeft = new Map<string, number>();
  for (const user of users) {
    // Counts for the burst at most, and its response has the other limits.
    const response = await create(service, user.token, '{');
    generationsLeft.set(user.id, Number(response.headers.get('ratelimit')?.match(/"generations";r=(\d+)/)?.[1]));
  }
  const jwksRequests = service.world.auth.jwksRequests;
  const caches = host.pids(service).length;
  wrong.push(...accountFor({ limits: LIMITS, users, answered, calls, rows, generationsLeft, duration_ms, jwksRequests, caches }));
  return { program: host.program, wrong, answered, duration_ms, before, after, modelCalls: calls.all.length, rows };
}

/** Some openings and completions are refused, and some take effect without a response. */
function injectDatabaseFaults({ world }: Service, chance: (probability: number) => boolean): void {
  const isWrite = ({ method, path }: { method: string; path: string }) =>
    method === 'POST' && (path === SESSIONS_PATH || path === FINISH_PATH);
  world.gateway.fail((request) => isWrite(request) && chance(0.04), { kind: 'answer', status: 503 });
  world.gateway.fail((request) => isWrite(request) && chance(0.02), { kind: 'cut' });
  world.gateway.fail((request) => isWrite(request) && chance(0.02), { kind: 'cut', kept: true });
  world.gateway.fail((request) => isWrite(request) && chance(0.1), { kind: 'delay', ms: 100 });
}

/** REWRITE_MS: rejected writes are repeated after 2, 4, 8 s, and the database accepts them then. */
const WRITTEN_MS = 30_000;

/** All rows, once the service has written the last one. */
async function endedRows({ world: { sql } }: Service): Promise<Rows> {
  const generating = () => sql<Row>("select id from ai_generation_sessions where status = 'generating'");
  await eventually('every session has ended', async () => ((await generating()).length === 0 ? true : undefined), WRITTEN_MS);
  const [sessions, candidates, events] = await Promise.all([
    sql<Row>('select * from ai_generation_sessions'),
    sql<Row>('select * from flashcard_candidates order by session_id, position'),
    sql<Row>('select * from event_logs order by id'),
  ]);
  return { sessions, candidates, events };
}

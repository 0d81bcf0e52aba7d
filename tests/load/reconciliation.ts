// Reconciles responses, rows, model calls and limits of a load run. Each check returns a sentence per deviation.

import type { Row, SignedIn } from '../service/service.ts';
import { candidateOf } from '../support/stored_session.ts';
import type { Calls } from './model_behaviours.ts';
import type { Answered } from './requests.ts';

export type Limits = {
  burst: { count: number; window_s: number };
  generations: { count: number; window_s: number };
  concurrent: number;
};

export type Rows = Record<'sessions' | 'candidates' | 'events', Row[]>;

/** All records of a finished run. */
export type Books = {
  limits: Limits;
  users: SignedIn[];
  answered: Answered[];
  calls: Calls;
  rows: Rows;
  /** The remaining `generations` of RateLimit, by user. */
  generationsLeft: Map<string, number>;
  duration_ms: number;
  jwksRequests: number;
  /** The processes that cache the keys. */
  caches: number;
};

export function accountFor(books: Books): string[] {
  return [sessions, events, candidates, modelCalls, charges, bursts, concurrency, loggedLimits, keys].flatMap((check) => check(books));
}

const isCreated = ({ answer }: Answered) => answer.status === 201;
const isGeneration = ({ scenario, answer }: Answered) => scenario !== undefined && answer.status !== 429;
const codeOf = ({ answer }: Answered): string => answer.body?.code ?? '';

/** Compares rows and responses by user and end: each accepted request has one row, no other has any. */
function sessions({ users, answered, rows }: Books): string[] {
  const wrong: string[] = [];
  for (const user of users) {
    const accepted = answered.filter((one) => one.user === user && isGeneration(one));
    const own = rows.sessions.filter(({ user_id }) => user_id === user.id);
    if (own.length !== accepted.length) wrong.push(`${accepted.length} accepted requests of a user have ${own.length} sessions`);
    for (const code of new Set([...accepted.map(codeOf), ...own.map(({ error_code }) => error_code ?? '')])) {
      // A completed session that was persisted late was reported as a database error.
      if (code === '' || code === 'database_error') continue;
      const logged = accepted.filter((one) => codeOf(one) === code).length;
      const stored = own.filter(({ error_code }) => error_code === code).length;
      if (logged !== stored) wrong.push(`${code} was reported ${logged} times to a user and is stored ${stored} times`);
    }
    const ids = new Set(own.filter(({ status }) => status === 'completed').map(({ id }) => id));
    const lost = accepted.filter((one) => isCreated(one) && !ids.has(one.answer.body.id));
    if (lost.length > 0) wrong.push(`${lost.length} sessions that were reported as created are not completed`);
  }
  return wrong;
}

/** Expects one event for the end of each session. */
function events({ rows }: Books): string[] {
  const ends = Map.groupBy(rows.events.filter(({ session_id }) => session_id !== null), ({ session_id }) => session_id);
  const wrong = rows.sessions.filter(({ id, status }) => {
    const types = ends.get(id)?.map(({ type }) => type) ?? [];
    return types.join() !== `ai_session.${status}`;
  });
  return wrong.map(({ id, status }) => `session ${id} is ${status} and has the events ${ends.get(id)?.map(({ type }) => type)}`);
}

/** Compares the candidates of responses and rows, partial where the model's behaviour was; a failed session has none. */
function candidates({ answered, rows }: Books): string[] {
  const stored = Map.groupBy(rows.candidates, ({ session_id }) => session_id);
  const wrong: string[] = [];
  for (const { answer, scenario } of answered.filter(isCreated)) {
    const { id, partial, candidates } = answer.body;
    const expected = (stored.get(id) ?? []).map(candidateOf);
    if (JSON.stringify(candidates) !== JSON.stringify(expected)) wrong.push(`session ${id} has other candidates in its response than in its rows`);
    if (partial !== (scenario?.outcome === 'partial')) wrong.push(`session ${id}: partial is ${partial} for a model outcome of ${scenario?.outcome}`);
  }
  for (const { id, status, partial } of rows.sessions) {
    const count = stored.get(id)?.length ?? 0;
    if (count > 0 !== (status === 'completed')) wrong.push(`session ${id} is ${status} and has ${count} candidates`);
    if (partial && status !== 'completed') wrong.push(`session ${id} is ${status} and partial`);
  }
  return wrong;
}

/** Compares model calls with the attempts in the events. */
function modelCalls({ calls, rows }: Books): string[] {
  const made = Map.groupBy(calls.all, ({ session }) => session);
  const logged = new Map(rows.events.map(({ session_id, data }) => [session_id, data]));
  const wrong = [...made.keys()].filter((id) => !logged.has(id)).map((id) => `the model was called for session ${id}, which does not exist`);
  for (const { id, error_code } of rows.sessions) {
    const { attempts } = logged.get(id) ?? {};
    const modelCallCount = made.get(id)?.length ?? 0;
    // Where the row could not be opened the call was stopped, perhaps before it was sent.
    const isExplained = error_code === 'database_error' ? modelCallCount <= 2 : modelCallCount === attempts;
    if (!isExplained) wrong.push(`session ${id} has ${attempts} attempts in its event and ${modelCallCount} model calls`);
  }
  return wrong;
}

/** Expects that no user exceeded the quota, and that the remaining quota is the unused one. */
function charges({ limits, users, rows, generationsLeft }: Books): string[] {
  return users.flatMap((user) => {
    const own = rows.sessions.filter(({ user_id }) => user_id === user.id);
    const used = own.filter(({ status, error_code }) => status === 'completed' || error_code === 'ai_refused').length;
    const left = generationsLeft.get(user.id);
    if (used > limits.generations.count) return [`a user has ${used} generations of ${limits.generations.count}`];
    return left === limits.generations.count - used ? [] : [`a user has used ${used} generations and RateLimit has ${left} left`];
  });
}

/** Expects that no window admitted more requests of a user than the quota. A request counts at some time before its response. */
function bursts({ limits: { burst }, users, answered }: Books): string[] {
  return users.flatMap((user) => {
    const letIn = answered.filter(
      ({ user: by, method, answer }) => by === user && method === 'POST' && !answer.body?.['violated-policies']?.includes('burst'),
    );
    const counts = letIn.map(({ sent_ms }) => {
      const end_ms = sent_ms + burst.window_s * 1000;
      return letIn.filter((one) => one.sent_ms >= sent_ms && one.answered_ms < end_ms).length;
    });
    const most = Math.max(0, ...counts);
    return most > burst.count ? [`${most} requests of a user were admitted within ${burst.window_s} s, ${burst.count} are allowed`] : [];
  });
}

/** Expects no more concurrent sessions of one user at the model server than allowed. */
function concurrency({ limits, calls }: Books): string[] {
  return calls.mostAtOnce > limits.concurrent ? [`${calls.mostAtOnce} generations of a user ran concurrently`] : [];
}

/** Expects an event for each limit that a user met, at most one in a window (of `concurrent`: a minute). */
function loggedLimits({ limits, users, answered, rows, duration_ms }: Books): string[] {
  const windows = {
    burst: limits.burst.window_s,
    generations: limits.generations.window_s,
    concurrent: 60,
  };
  return users.flatMap((user) =>
    Object.entries(windows).flatMap(([policy, window_s]) => {
      const met = answered.some(({ user: by, answer }) => by === user && answer.body?.['violated-policies']?.includes(policy));
      const logged = rows.events.filter(({ user_id, data }) => user_id === user.id && data.policy === policy).length;
      const most = met ? 1 + Math.floor(duration_ms / 1000 / window_s) : 0;
      return logged >= (met ? 1 : 0) && logged <= most ? [] : [`the event log has ${logged} events of a user’s ${policy}, at most ${most} are right`];
    }),
  );
}

/** Unknown keys cause at most one refresh of a cache in 30 s, besides the first fetch. */
function keys({ duration_ms, jwksRequests, caches }: Books): string[] {
  const most = caches * (2 + Math.ceil(duration_ms / 30_000));
  return jwksRequests <= most ? [] : [`the sign-in service received ${jwksRequests} requests for keys`];
}

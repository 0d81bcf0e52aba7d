// What the answers, the rows, the model's calls and the limits of a load run must add up to. Each check answers sentences
// on what does not.

import type { Row, SignedIn } from '../service/service.ts';
import type { Calls } from './model_behaviours.ts';
import type { Answered } from './requests.ts';

export type Limits = {
  burst: { count: number; window_s: number };
  generations: { count: number; window_s: number };
  concurrent: number;
};

export type Rows = Record<'sessions' | 'candidates' | 'events', Row[]>;

/** All that is known when a run is over. */
export type Books = {
  limits: Limits;
  users: SignedIn[];
  answered: Answered[];
  calls: Calls;
  rows: Rows;
  /** What RateLimit says is left of `generations`, by user. */
  unitsLeft: Map<string, number>;
  duration_ms: number;
  jwksRequests: number;
};

export function accountFor(books: Books): string[] {
  return [sessions, events, candidates, modelCalls, units, bursts, places, loggedLimits, keys].flatMap((check) => check(books));
}

const isCreated = ({ answer }: Answered) => answer.status === 201;
const isGeneration = ({ way, answer }: Answered) => way !== undefined && answer.status !== 429;
const codeOf = ({ answer }: Answered): string => answer.body?.code ?? '';

/** Rows by user and end are the answers by user and end: each accepted request has one, and no other has any. */
function sessions({ users, answered, rows }: Books): string[] {
  const wrong: string[] = [];
  for (const user of users) {
    const accepted = answered.filter((one) => one.user === user && isGeneration(one));
    const own = rows.sessions.filter(({ user_id }) => user_id === user.id);
    if (own.length !== accepted.length) wrong.push(`${accepted.length} accepted requests of a user have ${own.length} sessions`);
    for (const code of new Set([...accepted.map(codeOf), ...own.map(({ error_code }) => error_code ?? '')])) {
      // A completed one whose end the database took late was told as a database error.
      if (code === '' || code === 'database_error') continue;
      const logged = accepted.filter((one) => codeOf(one) === code).length;
      const stored = own.filter(({ error_code }) => error_code === code).length;
      if (logged !== stored) wrong.push(`${code} was told ${logged} times to a user and is stored ${stored} times`);
    }
    const ids = new Set(own.filter(({ status }) => status === 'completed').map(({ id }) => id));
    const lost = accepted.filter((one) => isCreated(one) && !ids.has(one.answer.body.id));
    if (lost.length > 0) wrong.push(`${lost.length} sessions that were told as created are not completed`);
  }
  return wrong;
}

/** One event of the session's end for each. */
function events({ rows }: Books): string[] {
  const ends = Map.groupBy(rows.events.filter(({ session_id }) => session_id !== null), ({ session_id }) => session_id);
  const wrong = rows.sessions.filter(({ id, status }) => {
    const types = ends.get(id)?.map(({ type }) => type) ?? [];
    return types.join() !== `ai_session.${status}`;
  });
  return wrong.map(({ id, status }) => `session ${id} is ${status} and has the events ${ends.get(id)?.map(({ type }) => type)}`);
}

/** What a client was given is what is stored, whole or not as the model's way was; a failed session has none. */
function candidates({ answered, rows }: Books): string[] {
  const stored = Map.groupBy(rows.candidates, ({ session_id }) => session_id);
  const wrong: string[] = [];
  for (const { answer, way } of answered.filter(isCreated)) {
    const { id, partial, candidates } = answer.body;
    const expected = (stored.get(id) ?? []).map(({ id, front, back, prompt }) => ({ id, front, back, prompt }));
    if (JSON.stringify(candidates) !== JSON.stringify(expected)) wrong.push(`session ${id} was answered by other cards than are stored`);
    if (partial !== (way?.comes_to === 'partial')) wrong.push(`session ${id}: partial is ${partial} for an answer of ${way?.comes_to}`);
  }
  for (const { id, status, partial } of rows.sessions) {
    const count = stored.get(id)?.length ?? 0;
    if (count > 0 !== (status === 'completed')) wrong.push(`session ${id} is ${status} and has ${count} cards`);
    if (partial && status !== 'completed') wrong.push(`session ${id} is ${status} and partial`);
  }
  return wrong;
}

/** Each call is an attempt that an event tells of, and each attempt is a call. */
function modelCalls({ calls, rows }: Books): string[] {
  const made = Map.groupBy(calls.all, ({ session }) => session);
  const logged = new Map(rows.events.map(({ session_id, data }) => [session_id, data]));
  const wrong = [...made.keys()].filter((id) => !logged.has(id)).map((id) => `the model was asked for session ${id}, which there is not`);
  for (const { id, error_code } of rows.sessions) {
    const { attempts } = logged.get(id) ?? {};
    const modelCallCount = made.get(id)?.length ?? 0;
    // Where the row could not be opened the call was stopped, perhaps before it had left.
    const isExplained = error_code === 'database_error' ? modelCallCount <= 2 : modelCallCount === attempts;
    if (!isExplained) wrong.push(`session ${id} tells of ${attempts} attempts, and the model was asked ${modelCallCount} times`);
  }
  return wrong;
}

/** Nobody has used more than the quota, and what is left is what was not used. */
function units({ limits, users, rows, unitsLeft }: Books): string[] {
  return users.flatMap((user) => {
    const own = rows.sessions.filter(({ user_id }) => user_id === user.id);
    const used = own.filter(({ status, error_code }) => status === 'completed' || error_code === 'ai_refused').length;
    const left = unitsLeft.get(user.id);
    if (used > limits.generations.count) return [`a user has ${used} generations of ${limits.generations.count}`];
    return left === limits.generations.count - used ? [] : [`a user has used ${used} generations and is told that ${left} are left`];
  });
}

/** In no window were more requests of a user let in than the quota. A request counts at some time before its answer. */
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
    return most > burst.count ? [`${most} requests of a user were let in within ${burst.window_s} s, ${burst.count} are allowed`] : [];
  });
}

/** The model server never had more sessions of one user in flight than allowed. */
function places({ limits, calls }: Books): string[] {
  return calls.mostAtOnce > limits.concurrent ? [`${calls.mostAtOnce} generations of a user ran at once`] : [];
}

/** The event log tells of each limit that a user met, at most once in a window (of `concurrent`: a minute). */
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
      return logged >= (met ? 1 : 0) && logged <= most ? [] : [`the event log tells ${logged} times of a user’s ${policy}, at most ${most} are right`];
    }),
  );
}

/** Unknown keys make one refresh in 30 s at most, beside the first fetch. */
function keys({ duration_ms, jwksRequests }: Books): string[] {
  const most = 2 + Math.ceil(duration_ms / 30_000);
  return jwksRequests <= most ? [] : [`the sign-in service was asked ${jwksRequests} times for keys`];
}

/**
 * The client for a page: create (sync, stream, async), read, list, cancel. Requires only `fetch`.
 *
 * It sends an `Idempotency-Key` with every request that is charged, so that a retry after a broken connection is never charged
 * twice; resumes a broken stream; renews an expired token once; turns every error response into a typed error (errors.ts).
 * With `wait_s` it also waits for `Retry-After`.
 */
import type * as documents from './documents.ts';
import type { Created, Model, Models, NewSession, Problem, Session, SessionList } from './documents.ts';
import { ConnectionError, errorOf, isAbort, ProblemError, retryAfter_s } from './errors.ts';
import { eventsIn, type StreamEvent } from './event_stream.ts';
import { openLine, type Pause, pause as realPause } from './line.ts';
import { type Quota, readQuota } from './quota.ts';

export interface ConnectOptions {
  /** The URL of the service, perhaps with a base path; slashes at its end are ignored. */
  url: string;
  /** The user's access token; `renew`: the service has rejected the last one as expired. Undefined: signed out. */
  accessToken: (renew: boolean) => Promise<string | undefined>;
  /** Called with the limits of every response that has them. */
  onQuota?: (quota: Quota[]) => void;
  /** Replaceable for tests. */
  fetch?: typeof fetch;
  pause?: Pause;
}

export interface CreateOptions {
  /** 1 to 255 visible characters; default: a random one for each call. The same key and request give the same session. */
  key?: string;
  signal?: AbortSignal;
  /** The maximum of seconds to wait for `Retry-After`, in total; default 0: the error is thrown at once. */
  wait_s?: number;
}

/** A place in a session's stream, to be kept for resuming it after a reload of the page. */
export interface StreamPlace {
  id?: string;
  lastEventId?: string;
}

export type SessionEvent = { lastEventId: string } & (
  | ({ type: 'session' } & documents.SessionEvent)
  | ({ type: 'candidate' } & documents.CandidateEvent)
  | ({ type: 'done' } & documents.DoneEvent)
);

/** The connection broke and is retried; the connection is restored. */
export type LineEvent = { type: 'interrupted'; offline: boolean } | { type: 'resumed' };

export interface AiSessions {
  /** The models, the default first. Retries broken connections: a page cannot work without them. */
  models(signal?: AbortSignal): Promise<Model[]>;
  /** Creates a session and waits for its candidates. */
  create(request: NewSession, options?: CreateOptions): Promise<Created>;
  /** Starts a session and returns at once (`Prefer: respond-async`); `ended` waits for its end. */
  createAsync(request: NewSession, options?: CreateOptions): Promise<Session>;
  /** Creates a session and yields its events. Ends after `done`; an `error` event is thrown as a `ProblemError`. */
  stream(request: NewSession, options?: CreateOptions & { from?: StreamPlace }): AsyncGenerator<SessionEvent | LineEvent>;
  /** Yields the events of an existing session, from its beginning or after an event. */
  subscribe(id: string, options?: { lastEventId?: string; signal?: AbortSignal }): AsyncGenerator<SessionEvent | LineEvent>;
  read(id: string, signal?: AbortSignal): Promise<Session>;
  /** Reads the session until it has ended. */
  ended(id: string, signal?: AbortSignal): Promise<Session>;
  list(page?: { limit?: number; before?: string; signal?: AbortSignal }): Promise<SessionList>;
  /** Stops a running generation; complete cards are kept. `not_running` if it has ended already. */
  cancel(id: string, signal?: AbortSignal): Promise<void>;
}

/** Attempts in a row without an event before an error: two minutes with the pauses between them. */
const ATTEMPTS_MAX = 12;
const PAUSE_FIRST_MS = 500;
const PAUSE_MAX_MS = 15_000;
/** Between two reads of a running session, without a Retry-After. */
const LOOK_AGAIN_S = 2;

type Outgoing = { method?: string; headers?: Record<string, string>; body?: NewSession; signal?: AbortSignal | undefined };
type Opening = { place: StreamPlace; headers: Record<string, string>; signal: AbortSignal };

export function connect({ url: publicUrl, accessToken, onQuota, fetch: doFetch = (...request) => fetch(...request), pause = realPause }: ConnectOptions): AiSessions {
  const url = publicUrl.replace(/\/+$/, '');

  /** Sends a request; throws an error response. */
  async function send(path: string, request: Outgoing = {}, renew = false): Promise<Response> {
    const { method = 'GET', headers = {}, body, signal = null } = request;
    const token = await accessToken(renew);
    const response = await doFetch(url + path, {
      method,
      headers: {
        ...headers,
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal,
    }).catch(broken('the service cannot be reached'));
    const quota = readQuota(response.headers);
    if (quota.length > 0) onQuota?.(quota);
    if (response.ok) return response;
    const error = await errorOf(response);
    if (!renew && error instanceof ProblemError && error.code === 'expired_token') return send(path, request, true);
    throw error;
  }

  async function sendForJson<T>(path: string, request: Outgoing = {}): Promise<T> {
    return bodyOf<T>(await send(path, request));
  }

  /** Sends a POST that may be repeated: its key makes it one session. */
  function post<T>(body: NewSession, options: CreateOptions, headers: Record<string, string>): Promise<T> {
    const withKey = { ...headers, 'idempotency-key': quoted(options.key ?? crypto.randomUUID()) };
    return patiently(() => sendForJson<T>('/ai-sessions', { method: 'POST', headers: withKey, body, signal: options.signal }), options);
  }

  /** Waits for `Retry-After` up to the maximum, and retries broken connections. */
  async function patiently<T>(attempt: () => Promise<T>, { wait_s = 0, signal = never }: { wait_s?: number; signal?: AbortSignal | undefined }, attemptsMax = ATTEMPTS_MAX): Promise<T> {
    let left_s = wait_s;
    for (let breaks = 1; ; ) {
      try {
        return await attempt();
      } catch (error) {
        if (error instanceof ConnectionError && breaks < attemptsMax) {
          await pause(backoff_ms(breaks), signal, 'online');
          breaks += 1;
          continue;
        }
        const after_s = error instanceof ProblemError && error.retryable ? error.retryAfter_s : undefined;
        if (after_s === undefined || after_s > left_s) throw error;
        left_s -= after_s;
        await pause(after_s * 1000, signal);
      }
    }
  }

  async function* subscribe(open: (opening: Opening) => Promise<Response>, from: StreamPlace, signal = never): AsyncGenerator<SessionEvent | LineEvent> {
    const place = { ...from };
    let isBroken = false;
    for (let breaks = 0; ; ) {
      const line = openLine(signal);
      try {
        const headers = { accept: 'text/event-stream', ...(place.lastEventId === undefined ? {} : { 'last-event-id': place.lastEventId }) };
        const response = await open({ place, headers, signal: line.signal });
        if (isBroken) yield { type: 'resumed' };
        isBroken = false;
        for await (const event of eventsIn(response.body ?? emptyBody(), line.alive)) {
          const known = sessionEvent(event);
          if (known === undefined) continue;
          breaks = 0;
          place.lastEventId = known.lastEventId;
          if (known.type === 'session') place.id = known.id;
          yield known;
          if (known.type === 'done') return;
        }
        // The body ended without `done` or `error`: the connection broke.
      } catch (error) {
        const lineBroke = error instanceof ConnectionError || isAbort(error);
        if (signal.aborted || !lineBroke) throw error;
      } finally {
        line.close();
      }
      // An offline page waits without a limit.
      const offline = globalThis.navigator?.onLine === false;
      breaks = offline ? Math.min(breaks + 1, ATTEMPTS_MAX / 2) : breaks + 1;
      if (breaks >= ATTEMPTS_MAX) throw new ConnectionError('the connection broke and could not be restored');
      isBroken = true;
      yield { type: 'interrupted', offline };
      await pause(backoff_ms(breaks), signal, 'online');
    }
  }

  return {
    async models(signal) {
      const { models } = await patiently(() => sendForJson<Models>('/models', { signal }), { signal });
      return models;
    },
    create(request, options = {}) {
      return post(request, options, { accept: 'application/json' });
    },
    createAsync(request, options = {}) {
      return post(request, options, { accept: 'application/json', prefer: 'respond-async' });
    },
    stream(request, { from = {}, key = crypto.randomUUID(), ...options } = {}) {
      const open = ({ place, headers, signal }: Opening) => {
        if (place.id !== undefined) return send(eventsPath(place.id), { headers, signal });
        const withKey = { ...headers, 'idempotency-key': quoted(key) };
        const attempt = () => send('/ai-sessions', { method: 'POST', headers: withKey, body: request, signal });
        // `subscribe` reports breaks, so one attempt is enough here.
        return patiently(attempt, { ...options, signal }, 1);
      };
      return subscribe(open, from, options.signal);
    },
    subscribe(id, { lastEventId, signal } = {}) {
      const open = ({ headers, signal }: Opening) => send(eventsPath(id), { headers, signal });
      return subscribe(open, lastEventId === undefined ? { id } : { id, lastEventId }, signal);
    },
    read(id, signal) {
      return sendForJson(sessionPath(id), { signal });
    },
    async ended(id, signal = never) {
      for (;;) {
        const { session, again_s } = await patiently(async () => {
          const response = await send(sessionPath(id), { signal });
          return { session: await bodyOf<Session>(response), again_s: retryAfter_s(response) ?? LOOK_AGAIN_S };
        }, { signal });
        if (session.status !== 'generating') return session;
        await pause(again_s * 1000, signal);
      }
    },
    list({ limit, before, signal } = {}) {
      const query = new URLSearchParams();
      if (limit !== undefined) query.set('limit', String(limit));
      if (before !== undefined) query.set('before', before);
      return sendForJson(query.size > 0 ? `/ai-sessions?${query}` : '/ai-sessions', { signal });
    },
    async cancel(id, signal) {
      await send(sessionPath(id), { method: 'DELETE', signal });
    },
  };
}

const never = new AbortController().signal;

const sessionPath = (id: string) => `/ai-sessions/${encodeURIComponent(id)}`;
const eventsPath = (id: string) => `${sessionPath(id)}/events`;

/** A string of structured fields (RFC 9651), as the draft of `Idempotency-Key` requires. */
const quoted = (key: string) => `"${key.replace(/["\\]/g, '\\$&')}"`;

/** Exponential, with half of it random, so that pages do not all reconnect at once after an outage. */
const backoff_ms = (breaks: number) => Math.min(PAUSE_FIRST_MS * 2 ** (breaks - 1), PAUSE_MAX_MS) * (0.5 + Math.random() / 2);

/** Rejects with the abort, or with a broken connection. */
function broken(what: string): (cause: unknown) => never {
  return (cause) => {
    throw isAbort(cause) ? cause : new ConnectionError(what, { cause });
  };
}

function bodyOf<T>(response: Response): Promise<T> {
  return response.json().catch(broken('the answer broke off')) as Promise<T>;
}

const emptyBody = () => new Blob([]).stream();

/** An event of a session; undefined for an unknown one, which a later version of the service may add. */
function sessionEvent({ type, data, id: lastEventId }: StreamEvent): SessionEvent | undefined {
  switch (type) {
    case 'session':
    case 'candidate':
    case 'done':
      return { type, lastEventId, ...JSON.parse(data) } as SessionEvent;
    case 'error':
      throw new ProblemError(JSON.parse(data) as Problem);
    default:
      return undefined;
  }
}

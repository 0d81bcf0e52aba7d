// Shared by all files here: how to start the service on any host, the world around it, and the requests that they have in
// common.

import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { deviations } from '../support/contract.ts';
import type { StreamEvent } from '../support/event_stream.ts';
import { EventSubscriber } from '../support/event_subscriber.ts';
import type { User, World } from '../support/world.ts';

export { candidateOf } from '../support/stored_session.ts';

/** A running service in a local world of its own. */
export type Service = {
  /** The URL for clients, perhaps with a base path; without a slash at the end. */
  readonly url: string;
  readonly world: World;
  /** Every line that the host has written. */
  readonly logs: string[];
  /** Stops it and starts it again on the same storage. */
  restart(): Promise<void>;
  close(): Promise<void>;
};

/** Variables of `docs/configuration.md`; an empty one counts as not set. A function where they depend on the world. */
export type Variables = Record<string, string> | ((world: World) => Record<string, string>);

/** Starts a service. */
export type StartService = (variables?: Variables) => Promise<Service>;

/** Starts one service for all tests of the suite around this call. When it is closed, its log must contain no secret. */
export function started(start: StartService, variables: Variables = {}): () => Service {
  let service: Service | undefined;
  before(async () => {
    service = await start(variables);
  });
  after(async () => {
    await service?.close();
    if (service !== undefined) expectNothingLeaked(service);
  });
  return () => {
    assert.ok(service, 'the service runs during the tests');
    return service;
  };
}

/** A response, read whole. */
export type Answer = { status: number; headers: Headers; body: any; text: string };

export type RequestOptions = { token?: string; headers?: Record<string, string>; body?: unknown; signal?: AbortSignal };

/** Sends a request; a body is sent as JSON unless it is a string or bytes. openapi.json must describe the response. */
export async function sendRequest(service: Service, method: string, path: string, options: RequestOptions = {}): Promise<Answer> {
  const answer = await readWhole(await send(service, method, path, options));
  const undescribed = deviations(method, path, answer);
  assert.deepEqual(undescribed, [], `${method} ${path} was answered ${answer.status} ${answer.text.slice(0, 1000)}`);
  return answer;
}

async function readWhole(response: Response): Promise<Answer> {
  const text = await response.text();
  const isJson = response.headers.get('content-type')?.includes('json') ?? false;
  return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : undefined, text };
}

function send(service: Service, method: string, path: string, { token, body, signal, ...options }: RequestOptions): Promise<Response> {
  // Each request has its own connection: one whose body was not read to its end may be closed after the response, and a
  // pool would reuse it in the next test.
  const headers = new Headers({ connection: 'close', ...options.headers });
  if (token !== undefined) headers.set('authorization', `Bearer ${token}`);
  keepSecret(service, ...(token ?? '').split('.').slice(1), textIn(body).slice(0, 40));
  const init: RequestInit = { method, headers, redirect: 'manual', ...(signal ? { signal } : {}) };
  if (body !== undefined) {
    if (!headers.has('content-type')) headers.set('content-type', 'application/json');
    const raw = typeof body === 'string' || body instanceof Uint8Array;
    init.body = raw ? (body as string) : JSON.stringify(body);
  }
  return fetch(service.url + path, init);
}

/** A stream was requested, and the response is none. */
export class NoStream extends Error {
  readonly answer: Answer;
  constructor(answer: Answer) {
    super(`no stream, but ${answer.status}: ${answer.text}`);
    this.answer = answer;
  }
}

/** Sends a request whose response is a stream of events. */
export async function openStream(service: Service, method: string, path: string, options: RequestOptions = {}): Promise<EventSubscriber> {
  const leaving = new AbortController();
  const response = await send(service, method, path, { ...options, signal: leaving.signal });
  const isStream = response.status === 200 && response.headers.get('content-type') === 'text/event-stream';
  if (!isStream) throw new NoStream(await readWhole(response));
  return new EventSubscriber(response, leaving);
}

/** The path of a session on the service's host, as its `Location`. */
export const pathOf = (service: Service, id: unknown): string => new URL(`${service.url}/ai-sessions/${id}`).pathname;

/** A valid text of exactly that many characters. */
export function textOf(characters: number, seed = 'The water of the sea rises as vapour and comes back as rain. '): string {
  const all = [...seed.repeat(Math.ceil(characters / [...seed].length))].slice(0, characters);
  if (/\s/u.test(all.at(-1) ?? '')) all[all.length - 1] = 'x';
  return all.join('');
}

/** A valid text that yields as many candidates as it has sentences, all different. */
export function lesson(sentences = 24): string {
  const nth = (n: number) => `Planet number ${n} of the catalogue circles its star in exactly ${n * 17 + 3} days.`;
  return Array.from({ length: sentences }, (_, i) => nth(i + 1)).join(' ');
}

export type SignedIn = User & { token: string };

/** Signs in a new user. */
export async function signIn(service: Service, wanted: { anonymous?: boolean } = {}): Promise<SignedIn> {
  const user = await service.world.auth.createUser(wanted);
  keepSecret(service, user.id);
  return { ...user, token: service.world.auth.token(user) };
}

/** `POST /ai-sessions` as that user, in sync mode by default. */
export function create(
  service: Service,
  token: string,
  body: unknown = { input_text: lesson(), model: 'test/first' },
  headers: Record<string, string> = {},
): Promise<Answer> {
  return sendRequest(service, 'POST', '/ai-sessions', { token, body, headers });
}

/** `POST /ai-sessions` as that user, in stream mode. */
export function createStream(
  service: Service,
  token: string,
  body: unknown = { input_text: lesson(), model: 'test/first' },
  headers: Record<string, string> = {},
): Promise<EventSubscriber> {
  return openStream(service, 'POST', '/ai-sessions', { token, body, headers: { accept: 'text/event-stream', ...headers } });
}

/** `GET /ai-sessions/{id}/events` as that user. */
export function subscribe(service: Service, token: string, id: string, lastEventId?: string): Promise<EventSubscriber> {
  const headers: Record<string, string> = lastEventId === undefined ? {} : { 'last-event-id': lastEventId };
  return openStream(service, 'GET', `/ai-sessions/${id}/events`, { token, headers });
}

/** `GET /ai-sessions/{id}` as that user. */
export function read(service: Service, token: string, id: string): Promise<Answer> {
  return sendRequest(service, 'GET', `/ai-sessions/${id}`, { token });
}

export type Row = Record<string, any>;

/** All rows of a user, past row level security. */
export async function rowsOf(service: Service, user: User): Promise<Record<'sessions' | 'candidates' | 'events', Row[]>> {
  const { sql } = service.world;
  const [sessions, candidates, events] = await Promise.all([
    sql<Row>('select * from ai_generation_sessions where user_id = $1 order by created_at, id', [user.id]),
    sql<Row>('select * from flashcard_candidates where user_id = $1 order by session_id, position', [user.id]),
    sql<Row>('select * from event_logs where user_id = $1 order by id', [user.id]),
  ]);
  return { sessions, candidates, events };
}

/** Waits until a session of the user has ended in the database: that is written after the response. */
export function endedSession(service: Service, user: User, deadline_ms?: number): Promise<Row> {
  return eventually('the session has ended', async () => (await rowsOf(service, user)).sessions.find(({ status }) => status !== 'generating'), deadline_ms);
}

/** The remaining requests and generations of the field RateLimit. */
export function remaining(answer: Pick<Answer, 'headers'>): Record<string, number> {
  const { attempts, ...left } = remainingOfAll(answer);
  return left;
}

/** The remaining quota of the field RateLimit, by policy. */
export function remainingOfAll(answer: Pick<Answer, 'headers'>): Record<string, number> {
  const field = answer.headers.get('ratelimit') ?? '';
  return Object.fromEntries([...field.matchAll(/"(\w+)";r=(\d+)/g)].map(([, name, left]) => [name, Number(left)]));
}

/** Expects an error in the format of all errors. Returns the document. */
export function expectProblem(answer: Answer, status: number, code: string): any {
  assert.deepEqual({ status: answer.status, code: answer.body?.code }, { status, code }, answer.text);
  assert.equal(answer.headers.get('content-type'), 'application/problem+json');
  const { type, title, detail, request_id } = answer.body;
  assert.equal(answer.body.status, status);
  assert.equal(request_id, answer.headers.get('x-request-id'));
  assert.ok(URL.canParse(type), `type is a URL: ${type}`);
  assert.ok(title.length > 0 && detail.length > 0);
  return answer.body;
}

/** Expects a whole list: `session`, the candidates in order, `done` or `error`; ids count up in their run. Returns the end. */
export function expectList(events: StreamEvent[], count: number, end: 'done' | 'error', run = 1): any {
  const names = ['session', ...Array.from({ length: count }, () => 'candidate'), end];
  assert.deepEqual(events.map(({ event }) => event), names);
  assert.deepEqual(events.map(({ id }) => id), names.map((_, place) => `${run}.${place}`));
  const candidates = events.slice(1, -1).map(({ data }) => data);
  assert.deepEqual(candidates.map(({ index }) => index), candidates.map((_, index) => index));
  return events.at(-1)?.data;
}

/** An event without the data of the request that received it: request id and origin. */
export function ofTheList({ event, id, data: { request_id, type, ...data } }: StreamEvent): StreamEvent {
  return { event, id, data };
}

/** Polls until the probe returns a value: for events after the response that have no signal. */
export async function eventually<T>(
  what: string,
  probe: () => Promise<T | undefined> | T | undefined,
  deadline_ms = 10_000,
): Promise<T> {
  const end_ms = Date.now() + deadline_ms;
  while (Date.now() < end_ms) {
    const found = await probe();
    if (found !== undefined) return found;
    await pause(20);
  }
  throw new Error(`${what}: not within ${deadline_ms} ms`);
}

export const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
export const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** The ids of users, and parts of tokens and texts that went through `sendRequest`, by service. */
const secrets = new WeakMap<Service, Set<string>>();

/** A shorter part could occur in a line by chance. */
const SECRET_CHARS_MIN = 12;

function keepSecret(service: Service, ...parts: string[]): void {
  const kept = secrets.get(service) ?? new Set();
  for (const part of parts) if (part.length >= SECRET_CHARS_MIN) kept.add(part);
  secrets.set(service, kept);
}

function textIn(body: unknown): string {
  const text = (body as { input_text?: unknown } | undefined)?.input_text;
  return typeof text === 'string' ? (text.trim().split(/[\r\n]/)[0] ?? '') : '';
}

/** Expects no token, key, text or user's id in any line. */
function expectNothingLeaked(service: Service): void {
  const { anonKey, serviceKey, jwtSecret, openrouter } = service.world;
  const keys = [...anonKey.split('.').slice(1), ...serviceKey.split('.').slice(1), jwtSecret, openrouter.key];
  const never = [...keys, ...(secrets.get(service) ?? [])];
  const leaks = service.logs.filter((line) => never.some((secret) => line.includes(secret)));
  assert.deepEqual(leaks, [], "log lines with a token, a key, a text or a user's id");
}

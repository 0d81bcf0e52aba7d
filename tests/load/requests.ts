// The requests of a load run: valid, invalid and forged ones, each with its possible responses.

import { type Answer, createStream, lesson, NoStream, type RequestOptions, sendRequest, type Service, type SignedIn, subscribe } from '../service/service.ts';
import { isEnd, type StreamEvent } from '../support/event_stream.ts';
import type { Choices } from '../support/seeded_random.ts';
import { sentenceOf, type Scenario, type ScenarioName, SCENARIOS } from './model_behaviours.ts';

/** A chosen request. */
export type Chosen = {
  kind: string;
  method: string;
  path: string;
  options: RequestOptions;
  /** Each is a status, and where it is an error, a space and the code: `429 rate_limited`. */
  allowed: string[];
  user?: SignedIn;
  /** Present where the model is called. */
  scenario?: Scenario;
  /** Present in stream mode: the stream is cut after these numbers of candidates, and resumed. */
  cuts?: number[];
};

/** A request and its response. */
export type Answered = Chosen & { answer: Answer; sent_ms: number; answered_ms: number };

/** A session of a user. */
export type Known = { id: string; user: SignedIn };

type Kind = (choices: Choices, user: SignedIn, known: Known[]) => Omit<Chosen, 'kind' | 'user'>;

const BODY_BYTES_MAX = 256 * 1024;

/** The refusal that every authenticated `POST` may receive. */
const LIMITED = '429 rate_limited';

function post(body: unknown, allowed: string[], headers: Record<string, string> = {}): ReturnType<Kind> {
  return { method: 'POST', path: '/ai-sessions', options: { body, headers }, allowed: [...allowed, LIMITED] };
}

const body = (text: string, more: object = {}) => ({ input_text: text, model: 'test/first', ...more });

const candidates: Kind = (choices) => {
  const names = Object.entries(SCENARIOS).map(([name, { weight }]): [number, ScenarioName] => [weight, name as ScenarioName]);
  const name = choices.pick(names);
  const scenario = SCENARIOS[name];
  const expected = scenario.outcome === 'candidates' || scenario.outcome === 'partial' ? '201' : `500 ${scenario.outcome}`;
  // The database fails sometimes, also three times in a row.
  const chosen = post(body(`${sentenceOf(name)} ${lesson(choices.between(14, 60))}`), [expected, '500 database_error']);
  return { ...chosen, scenario };
};

const streams: Kind = (choices, user, known) => {
  const cuts = Array.from({ length: choices.pick([[3, 0], [2, 1], [1, 3]]) }, () => choices.between(1, 20));
  return { ...candidates(choices, user, known), cuts: cuts.sort((a, b) => a - b) };
};

const badBodies: [weight: number, kind: () => ReturnType<Kind>][] = [
  [4, () => post(body('too short'), ['400 validation_failed'])],
  [2, () => post(body(lesson(), { model: 'test/unknown' }), ['400 validation_failed'])],
  [2, () => post(body(lesson(), { more: 1 }), ['400 validation_failed', '400 malformed_json'])],
  [3, () => post('{"input_text": "', ['400 malformed_json'])],
  [1, () => post(new Uint8Array([0x7b, 0xff, 0x7d]), ['400 malformed_json'])],
  [2, () => post(body(lesson()), ['415 unsupported_media_type'], { 'content-type': 'text/plain' })],
  [1, () => post(body('x'.repeat(BODY_BYTES_MAX)), ['413 body_too_large'])],
];

const bad: Kind = (choices) => choices.pick(badBodies)();

const readOwn: Kind = (choices, user, known) => {
  const own = known.filter((session) => session.user === user);
  const session = own[choices.between(0, own.length - 1)];
  // Users without a session read one that does not exist.
  const path = `/ai-sessions/${session?.id ?? '01890000-0000-7000-8000-000000000000'}`;
  return { method: 'GET', path, options: {}, allowed: [session === undefined ? '404 not_found' : '200'] };
};

const readAnothers: Kind = (choices, user, known) => {
  const others = known.filter((session) => session.user !== user);
  const session = others[choices.between(0, others.length - 1)];
  const path = `/ai-sessions/${session?.id ?? '01890000-0000-7000-8000-000000000000'}`;
  return { method: 'GET', path, options: {}, allowed: ['404 not_found'] };
};

const get = (path: string, allowed: string): Kind => () => ({ method: 'GET', path, options: {}, allowed: [allowed] });
const remove: Kind = () => ({ method: 'DELETE', path: '/models', options: {}, allowed: ['405 method_not_allowed'] });

const KINDS: [weight: number, name: string, kind: Kind][] = [
  [30, 'candidates', candidates],
  [20, 'candidates, streamed', streams],
  [14, 'bad body', bad],
  [12, 'own session', readOwn],
  [4, 'another’s session', readAnothers],
  [3, 'models', get('/models', '200')],
  [3, 'health', get('/health', '200')],
  [1, 'nowhere', get('/nowhere', '404 not_found')],
  [1, 'wrong method', remove],
];

/** The faults of tokens, and their responses. */
const tokens: [weight: number, wrong: (service: Service, user: SignedIn) => [token: string | undefined, allowed: string]][] = [
  [2, () => [undefined, '401 missing_token']],
  [2, () => ['not.a.token', '401 invalid_token']],
  [3, (_, { token }) => [`${token.slice(0, -8)}AAAAAAAA`, '401 invalid_token']],
  [3, ({ world }, user) => [world.auth.token(user, { expires_in_s: -120 }), '401 expired_token']],
  [2, ({ world }, user) => [world.auth.token(user, { header: { kid: 'unknown' } }), '401 invalid_token']],
  [2, ({ world }, user) => [world.auth.token(user, { claims: { role: 'service_role' } }), '401 invalid_token']],
];

/** A tenth of all requests have an invalid token. */
const FORGED = 0.1;

/** Chooses the next request. */
export function choose(service: Service, choices: Choices, users: SignedIn[], known: Known[]): Chosen {
  // Some users send many more requests than others, and meet their limits.
  const user = users[choices.chance(0.2) ? choices.between(0, Math.ceil(users.length / 20) - 1) : choices.between(0, users.length - 1)];
  if (user === undefined) throw new Error('a load run has users');
  if (choices.chance(FORGED)) {
    const [token, allowed] = choices.pick(tokens)(service, user);
    const options: RequestOptions = { body: body(lesson()), ...(token === undefined ? {} : { token }) };
    return { kind: 'bad token', method: 'POST', path: '/ai-sessions', options, allowed: [allowed] };
  }
  const [name, kind] = choices.pick(KINDS.map(([weight, name, kind]): [number, [string, Kind]] => [weight, [name, kind]]));
  const chosen = kind(choices, user, known);
  return { ...chosen, kind: name, user, options: { ...chosen.options, token: user.token } };
}

/** A request without a response for this long has failed: far more than the slowest behaviour of the model takes. */
const ANSWER_MS_MAX = 30_000;

/** Sends a chosen request. */
export async function send(service: Service, chosen: Chosen): Promise<Answered> {
  const sent_ms = performance.now();
  const signal = AbortSignal.timeout(ANSWER_MS_MAX);
  const options = { ...chosen.options, signal };
  const answer = chosen.cuts
    ? await readStream(service, options, chosen.cuts).catch(refusal)
    : await sendRequest(service, chosen.method, chosen.path, options);
  return { ...chosen, answer, sent_ms, answered_ms: performance.now() };
}

/** Reads a stream, cut after these numbers of candidates and resumed. Returns the response of sync mode. */
async function readStream(service: Service, { token = '', body, headers }: RequestOptions, cuts: number[]): Promise<Answer> {
  let stream = await createStream(service, token, body, headers);
  const joined: StreamEvent[] = [];
  for (const cut of cuts) {
    while (joined.length <= cut && !isEnd(joined.at(-1))) joined.push(await stream.next(ANSWER_MS_MAX));
    if (isEnd(joined.at(-1))) break;
    stream.leave();
    stream = await subscribe(service, token, joined[0]?.data.id, joined.at(-1)?.id);
  }
  while (!isEnd(joined.at(-1))) joined.push(await stream.next(ANSWER_MS_MAX));
  if ((await stream.end) !== 'whole') throw new Error('the stream broke off after its end');
  return inSyncMode(stream.headers, joined);
}

/** A stream that is refused has an ordinary response. */
function refusal(error: unknown): Answer {
  if (error instanceof NoStream) return error.answer;
  throw error;
}

function inSyncMode(headers: Headers, events: StreamEvent[]): Answer {
  const [session, ...rest] = events;
  const end = rest.pop();
  const candidates = rest.map(({ data: { index, ...candidate } }) => candidate);
  const isInOrder = rest.every(({ event, data }, index) => event === 'candidate' && data.index === index);
  if (session?.event !== 'session' || !isInOrder) throw new Error(`no list: ${events.map(({ id, event }) => `${id} ${event}`).join(', ')}`);
  const isDone = end?.event === 'done' && end.data.count === candidates.length;
  const body = isDone ? { id: session.data.id, partial: end.data.partial, candidates } : end?.data;
  return { status: isDone ? 201 : body?.status, headers, body, text: JSON.stringify(body) };
}

/** The notation of `allowed`. */
export const word = ({ status, body }: Answer) => (status < 400 ? String(status) : `${status} ${body?.code}`);

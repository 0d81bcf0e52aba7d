// POST /ai-sessions without failures: the response, the stored rows, the requests to upstreams.
// The allowed bodies: request_body.ts. The model call, byte by byte: model_requests.ts.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { concernsRows } from '../support/gateway.ts';
import { answer, content } from '../support/model_behaviour.ts';
import type { ModelRequest } from '../support/model_request.ts';
import {
  candidateOf,
  create,
  lesson,
  pathOf,
  read,
  remaining,
  rowsOf,
  type Service,
  signIn,
  started,
  type StartService,
  UUID_V7,
} from './service.ts';

export function tests(start: StartService): void {
  describe('with the default variables', () => withDefaults(start));
  describe('with MAX_CANDIDATES=3', () => withFewCandidates(start));
}

function withDefaults(start: StartService): void {
  const service = started(start);

  it('the response is 201 with the candidates and a Location', async () => {
    const { token } = await signIn(service());
    const created = await create(service(), token);
    assert.equal(created.status, 201, created.text);
    assert.equal(created.headers.get('content-type'), 'application/json');
    assert.equal(created.headers.get('cache-control'), 'no-store');
    assert.equal(created.headers.get('location'), pathOf(service(), created.body.id));
    assert.deepEqual(Object.keys(created.body).sort(), ['candidates', 'coverage', 'id', 'partial']);
    assert.match(created.body.id, UUID_V7);
    assert.equal(created.body.partial, false);
    assert.equal(created.body.candidates.length, 20);
    for (const candidate of created.body.candidates) {
      assert.deepEqual(Object.keys(candidate).sort(), ['back', 'front', 'id', 'notes', 'prompt', 'source', 'supported']);
      assert.match(candidate.id, UUID_V7);
      for (const [field, max] of Object.entries({ front: 200, back: 500, prompt: 500 })) {
        const characters = [...candidate[field]].length;
        assert.ok(characters >= 1 && characters <= max, `${field} has ${characters} characters`);
      }
    }
    const ids = new Set(created.body.candidates.map((candidate: { id: string }) => candidate.id));
    assert.equal(ids.size, 20);
    const found = await read(service(), token, created.headers.get('location')?.split('/').at(-1) ?? '');
    assert.deepEqual(found.body.candidates, created.body.candidates);
  });

  it('the session, its ordered candidates and one event are stored', async () => {
    const user = await signIn(service());
    const input_text = lesson();
    const { body } = await create(service(), user.token, { input_text, model: 'test/second' });
    const { sessions, candidates, events } = await rowsOf(service(), user);
    assert.equal(sessions.length, 1);
    const [session] = sessions;
    assert.equal(session?.['id'], body.id);
    assert.equal(session?.['status'], 'completed');
    assert.equal(session?.['model'], 'test/second');
    assert.equal(session?.['input_text'], input_text);
    assert.equal(session?.['partial'], false);
    assert.equal(session?.['error_code'], null);
    assert.ok(session?.['ended_at'] >= session?.['created_at']);
    assert.deepEqual(candidates.map(candidateOf), body.candidates);
    assert.deepEqual(
      candidates.map(({ position, session_id }) => ({ position, session_id })),
      body.candidates.map((_: unknown, position: number) => ({ position, session_id: body.id })),
    );
    assert.equal(events.length, 1);
    assert.equal(events[0]?.['type'], 'ai_session.completed');
    assert.equal(events[0]?.['session_id'], body.id);
    const { attempts, candidates: kept, dropped, usage, duration_ms } = events[0]?.['data'];
    assert.deepEqual({ attempts, kept, dropped }, { attempts: 1, kept: 20, dropped: 0 });
    assert.ok(duration_ms >= 0);
    assert.deepEqual(
      [usage.prompt_tokens, usage.completion_tokens, usage.cost],
      [session?.['prompt_tokens'], session?.['completion_tokens'], Number(session?.['cost'])],
    );
    assert.ok(usage.prompt_tokens > 0 && usage.completion_tokens > 0 && usage.cost > 0);
  });

  it('a Russian text of 5000 characters is stored and sent sanitized', async () => {
    const user = await signIn(service());
    const { sent, sanitized } = russianText(5000);
    assert.equal([...sanitized].length, 5000);
    const created = await create(service(), user.token, { input_text: sent, model: 'test/first' });
    assert.equal(created.status, 201, created.text);
    const { sessions, candidates } = await rowsOf(service(), user);
    assert.equal(sessions[0]?.['input_text'], sanitized);
    // Each sentence has its number before it, on a line of its own.
    const withoutNumbers = messageIn(await lastModelRequest(service(), created.body.id)).replace(/^\d+ /gmu, '');
    assert.ok(withoutSpace(withoutNumbers).includes(withoutSpace(sanitized)));
    assert.equal(candidates.length, 20);
    for (const candidate of candidates) assert.match(`${candidate['front']} ${candidate['back']}`, /\p{Script=Cyrillic}/u);
    assert.ok(candidates.some((candidate) => /[\u{1F300}-\u{1FAFF}]/u.test(candidate['back'])), 'astral characters are kept');
  });

  it('a generation is one model call and two database requests', async () => {
    const { token } = await signIn(service());
    assert.equal((await create(service(), token)).status, 201);
    const { gateway, openrouter } = service().world;
    gateway.requests.clear();
    openrouter.requests.clear();
    openrouter.otherRequests.clear();
    assert.equal((await create(service(), token)).status, 201);
    const { token: another } = await signIn(service());
    assert.equal((await create(service(), another)).status, 201);
    const perGeneration = ['POST /rest/v1/ai_generation_sessions', 'POST /rest/v1/rpc/finish_ai_session'];
    assert.deepEqual(
      gateway.requests.where(concernsRows).map(({ method, path }) => `${method} ${path}`),
      [...perGeneration, ...perGeneration],
    );
    assert.deepEqual([openrouter.requests.total, openrouter.otherRequests.total], [2, 0]);
  });

  it('the database receives the user’s token and the public key only', async () => {
    const { gateway, serviceKey, openrouter } = service().world;
    const { token } = await signIn(service());
    gateway.requests.clear();
    const { body } = await create(service(), token);
    await read(service(), token, body.id);
    assert.equal(gateway.requests.where(concernsRows).length, 3);
    for (const request of gateway.requests.recent) {
      const { path, headers, raw } = request;
      assert.match(path, /^\/rest\/v1\//);
      assert.equal(headers['authorization'], concernsRows(request) ? `Bearer ${token}` : undefined);
      assert.equal(headers['apikey'], service().world.anonKey);
      const said = JSON.stringify(headers) + path + raw;
      for (const key of [serviceKey, openrouter.key]) assert.ok(!said.includes(key));
    }
  });

  it('the model API receives its key and no other credential', async () => {
    const { anonKey, openrouter } = service().world;
    const { token } = await signIn(service());
    const { body } = await create(service(), token);
    const sent = await lastModelRequest(service(), body.id);
    assert.equal(sent.headers['authorization'], `Bearer ${openrouter.key}`);
    const said = JSON.stringify(sent.headers) + sent.raw;
    for (const foreign of [token, anonKey]) assert.ok(!said.includes(foreign));
  });

  it('an invalid or duplicate candidate is dropped alone', async () => {
    const candidate = (front: string, more: object = {}) => ({ front, back: 'Back.', prompt: 'Tests it.', ...more });
    const sent = [
      candidate('First?'),
      candidate(''),
      candidate(' \u0000 '),
      candidate('f'.repeat(201)),
      candidate('Back too long?', { back: 'b'.repeat(501) }),
      candidate('Prompt too long?', { prompt: 'p'.repeat(501) }),
      { front: 'No prompt?', back: 'Back.' },
      candidate('A number?', { back: 7 }),
      'no card',
      candidate('  FIRST? '),
      candidate('Straße  hat\tzwei?'),
      candidate('STRASSE hat zwei?'),
      candidate('😀'.repeat(200), { back: '😀'.repeat(500), prompt: '😀'.repeat(500) }),
      candidate('With\u0000 control\u0007?', { back: 'one\r\ntwo' }),
    ];
    const user = await signIn(service());
    service().world.openrouter.next(content(JSON.stringify({ candidates: sent })));
    const { status, body, text } = await create(service(), user.token);
    assert.equal(status, 201, text);
    assert.equal(body.partial, false);
    assert.deepEqual(
      body.candidates.map(({ front, back }: { front: string; back: string }) => [front, back]),
      [
        ['First?', 'Back.'],
        ['Straße  hat\tzwei?', 'Back.'],
        ['😀'.repeat(200), '😀'.repeat(500)],
        ['With control?', 'one\ntwo'],
      ],
    );
    const { candidates, events } = await rowsOf(service(), user);
    assert.equal(candidates.length, 4);
    assert.deepEqual([events[0]?.['data'].candidates, events[0]?.['data'].dropped], [4, 10]);
  });

  it('at most 20 candidates are kept', async () => {
    const { token } = await signIn(service());
    const candidates = Array.from({ length: 25 }, (_, n) => ({ front: `Question ${n}?`, back: 'Back.', prompt: 'Tests it.' }));
    service().world.openrouter.next(answer({ candidates }));
    const { status, body } = await create(service(), token);
    assert.equal(status, 201);
    assert.deepEqual(
      body.candidates.map(({ front }: { front: string }) => front),
      candidates.slice(0, 20).map(({ front }) => front),
    );
  });

  it('a generation counts once in each policy', async () => {
    const { token } = await signIn(service());
    const created = await create(service(), token);
    assert.equal(created.headers.get('ratelimit-policy'), '"burst";q=10;w=60, "generations";q=50;w=86400, "attempts";q=150;w=86400');
    assert.deepEqual(remaining(created), { burst: 9, generations: 49 });
    assert.deepEqual(remaining(await create(service(), token)), { burst: 8, generations: 48 });
  });
}

function withFewCandidates(start: StartService): void {
  const service = started(start, { MAX_CANDIDATES: '3' });

  it('MAX_CANDIDATES bounds the candidates', async () => {
    const { token } = await signIn(service());
    const { body } = await create(service(), token);
    assert.equal(body.candidates.length, 3);
  });
}

/** The model call of a session. */
function lastModelRequest(service: Service, id: string): Promise<ModelRequest> {
  return service.world.openrouter.requests.nthWhere(1, ({ headers }) => headers['x-session-id'] === id);
}

const withoutSpace = (text: string) => text.replace(/\s/gu, '');

function messageIn({ body }: ModelRequest): string {
  const message = body?.messages?.at(-1)?.content;
  assert.ok(typeof message === 'string');
  return message;
}

/**
* A pasted text: Windows line ends, old Mac line ends, control characters of both ranges, a byte order mark,
 * hidden tag characters, emoji, combining marks. `sanitized` is written out, not computed.
 */
function russianText(characters: number): { sent: string; sanitized: string } {
  const [bom, tag, c1] = ['\uFEFF', '\u{E0041}', '\u0085'];
  let [sent, sanitized] = [` ${bom}\r\n\t`, ''];
  const add = (dirty: string, clean = dirty) => {
    sent += dirty;
    sanitized += clean;
  };
  for (let n = 1; ; n += 1) {
    const sentence = `Город номер ${n} стоит на реке 🌊 длиной в ${n * 37} вёрст и помнит ё́лку 👨‍👩‍👧.`;
    if ([...sanitized].length + [...sentence].length + 4 > characters) break;
    add(sentence);
    if (n % 5 === 0) add('\r\n', '\n');
    else if (n % 5 === 1) add('\r', '\n');
    else if (n % 5 === 2) add('\u0000\u0007\u001B\u007F ', ' ');
    else if (n % 5 === 3) add(`${c1}${bom}${tag}\t`, '\t');
    else add('\n');
  }
  add('я'.repeat(characters - [...sanitized].length));
  return { sent: `${sent}\r\n \u3000\u0000`, sanitized };
}

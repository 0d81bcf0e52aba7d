// The allowed bodies of POST /ai-sessions, and the cost of an invalid one.

import assert from 'node:assert/strict';
import { request as httpRequest } from 'node:http';
import { text } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { within } from '../support/within.ts';
import {
  type Answer,
  create,
  expectProblem,
  lesson,
  remaining,
  rowsOf,
  type Service,
  signIn,
  started,
  type StartService,
  textOf,
} from './service.ts';

const BODY_BYTES_MAX = 256 * 1024;

export function tests(start: StartService): void {
  const service = started(start);

  /** Sends the body as a new user, so that tests do not share a burst. */
  const createWith = async (body: unknown, headers: Record<string, string> = {}) =>
    create(service(), (await signIn(service())).token, body, headers);

  describe('the length of input_text', () => {
    const expectLength = (answer: Answer, actual: number) => {
      const [error, ...others] = expectProblem(answer, 400, 'validation_failed').errors;
      assert.deepEqual(others, []);
      const { field, code, min, max } = error;
      assert.deepEqual({ field, code, min, max, actual: error.actual }, { field: 'input_text', code: 'length', min: 1000, max: 10000, actual });
      assert.ok(error.message.length > 0);
    };
    for (const [kind, seed] of [['latin', undefined], ['astral', '😀'], ['of many code points a glyph', 'e\u0301👨‍👩‍👧']] as const) {
      for (const characters of [999, 10_001]) {
        it(`a text of ${characters} characters (${kind}) is refused`, async () => {
          expectLength(await createWith({ input_text: textOf(characters, seed), model: 'test/first' }), characters);
        });
      }
      for (const characters of [1000, 10_000]) {
        it(`a text of ${characters} characters (${kind}) is accepted`, async () => {
          const created = await createWith({ input_text: textOf(characters, seed), model: 'test/first' });
          assert.equal(created.status, 201, created.text);
        });
      }
    }

    const text = textOf(1000);
    for (const [name, input_text, actual] of [
      ['white space around it', ` \n\u00A0\u3000${text.slice(1)}\t\r\n`, 999],
      ['control characters', `${text.slice(0, 500)}\u0000\u001B\u007F\u009F${text.slice(501)}`, 999],
      ['hidden characters', `\uFEFF${text.slice(0, 500)}\u{E0020}\u{E007F}${text.slice(501)}`, 999],
      ['the second half of CRLF', `${text.slice(0, 500)}\r\n${text.slice(502)}`, 999],
      ['a text of nothing else', '\u0000 '.repeat(2000), 0],
      ['an empty text', '', 0],
    ] as const) {
      it(`input_text is counted without ${name}`, async () => {
        expectLength(await createWith({ input_text, model: 'test/first' }), actual);
      });
    }

    it('a text that is short enough after sanitizing is accepted', async () => {
      const input_text = ` ${textOf(5000)}\u0000\r\n${textOf(4999)} `;
      assert.equal((await createWith({ input_text, model: 'test/first' })).status, 201);
    });
  });

  describe('the fields', () => {
    const input_text = lesson();
    const model = 'test/first';
    for (const [name, body, fields] of [
      ['no field', {}, ['input_text', 'model']],
      ['no model', { input_text }, ['model']],
      ['no text', { model }, ['input_text']],
      ['a text that is a number', { input_text: 7, model }, ['input_text']],
      ['a text that is null', { input_text: null, model }, ['input_text']],
      ['a text that is a list', { input_text: [input_text], model }, ['input_text']],
      ['a text that is an object', { input_text: { text: input_text }, model }, ['input_text']],
      ['a model that is a boolean', { input_text, model: true }, ['model']],
      ['a model that is not allowed', { input_text, model: 'test/third' }, ['model']],
      ['a model in other letters', { input_text, model: 'Test/First' }, ['model']],
      ['a model with a space', { input_text, model: 'test/first ' }, ['model']],
      ['an empty model', { input_text, model: '' }, ['model']],
      ['an unknown field', { input_text, model, temperature: 1 }, ['temperature']],
      ['a field in other letters', { input_text, model, Model: model }, ['Model']],
      ['three things at once', { input_text: 'short', model: 'test/third', x: 1 }, ['input_text', 'model', 'x']],
    ] as const) {
      it(`${name}: a 422 that names the field`, async () => {
        const { errors } = expectProblem(await createWith(body), 400, 'validation_failed');
        assert.deepEqual(errors.map((error: { field: string }) => error.field).sort(), [...fields].sort());
      });
    }

    for (const [name, body] of [['a list', []], ['a string', '"text"'], ['a number', '7'], ['null', 'null'], ['a boolean', 'true']] as const) {
      it(`${name} in place of an object is refused`, async () => {
        expectProblem(await createWith(body), 400, 'validation_failed');
      });
    }
  });

  describe('strict JSON', () => {
    const good = JSON.stringify({ input_text: lesson(), model: 'test/first' });
    const bytes = (text: string, ...inserted: number[]) => {
      const [before, after] = text.split('¤') as [string, string];
      return Buffer.concat([Buffer.from(before), Buffer.from(inserted), Buffer.from(after)]);
    };
    const inText = good.replace('Planet', 'Pl¤net');
    for (const [name, body] of [
      ['an empty body', new Uint8Array()],
      ['white space alone', ' \n'],
      ['no JSON', 'input_text=text'],
      ['a body that breaks off', good.slice(0, -1)],
      ['a trailing comma', good.replace(/\}$/, ',}')],
      ['trailing bytes', `${good}x`],
      ['a second document', `${good}{}`],
      ['a NUL after the end', `${good}\u0000`],
      ['a comment', good.replace('{', '{/* */')],
      ['single quotes', "{'input_text':'a','model':'test/first'}"],
      ['NaN', '{"input_text":NaN,"model":"test/first"}'],
      ['a raw control character in a string', good.replace('Planet', 'Pla\u0001net')],
      ['a byte order mark', Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), Buffer.from(good)])],
      ['UTF-16', Buffer.from(good, 'utf16le')],
      ['a byte that is no UTF-8', bytes(inText, 0xff)],
      ['an overlong form', bytes(inText, 0xc0, 0xaf)],
      ['a character cut in half', bytes(inText, 0xf0, 0x9f, 0x98)],
      ['a surrogate in UTF-8', bytes(inText, 0xed, 0xa0, 0x80)],
      ['a lone high surrogate', good.replace('Planet', 'Pl\\ud83dnet')],
      ['a lone low surrogate', good.replace('Planet', 'Pl\\ude00net')],
      ['surrogates in the wrong order', good.replace('Planet', 'Pl\\ude00\\ud83dnet')],
      ['a lone surrogate in an unknown field', good.replace('{', '{"\\ud83d":1,')],
      ['a field twice', good.replace('{', '{"model":"test/first",')],
      ['a field twice, once escaped', good.replace('{', '{"mod\\u0065l":"test/first",')],
      ['an unknown field twice', good.replace('{', '{"x":1,"x":2,')],
      ['deeply nested lists', '['.repeat(100_000)],
      ['deeply nested lists in an unknown field', good.replace('{', `{"x":${'['.repeat(1000)}${']'.repeat(1000)},`)],
      ['a lone surrogate in the value of an unknown field', good.replace('{', '{"x":["\\ud83d"],')],
      ['a byte that is no UTF-8 in the value of an unknown field', bytes(good.replace('{', '{"x":"¤",'), 0xff)],
      ['a byte that is no UTF-8 in place of an object', bytes('["¤"]', 0xff)],
    ] as const) {
      it(`${name}: 400 malformed_json`, async () => {
        expectProblem(await createWith(body), 400, 'malformed_json');
      });
    }

    for (const [name, body] of [
      ['white space around it', ` \r\n${good}\n\t`],
      ['escapes', good.replace('Planet', '\\u0050lanet')],
      ['an escaped pair of surrogates', good.replace('Planet', 'Pl\\ud83d\\ude00net')],
      ['the members in the other order', JSON.stringify({ model: 'test/first', input_text: lesson() })],
    ] as const) {
      it(`JSON with ${name} is accepted`, async () => {
        const created = await createWith(body);
        assert.equal(created.status, 201, created.text);
      });
    }
  });

  describe('the size', () => {
    const padded = (bytes: number) => {
      const good = JSON.stringify({ input_text: lesson(), model: 'test/first' });
      return good + ' '.repeat(bytes - good.length);
    };
    for (const framing of ['announced', 'in chunks'] as const) {
      const send = async (bytes: number) => {
        const { token } = await signIn(service());
        return createWithFraming(service(), token, padded(bytes), framing);
      };
      it(`a body of 256 KiB is accepted, ${framing}`, async () => {
        const created = await send(BODY_BYTES_MAX);
        assert.equal(created.status, 201, created.text);
      });
      it(`a body of 256 KiB and a byte is refused, ${framing}`, async () => {
        expectProblem(await send(BODY_BYTES_MAX + 1), 413, 'body_too_large');
      });
    }

    it('a body that is too large is refused before its end', async () => {
      const { token } = await signIn(service());
      const answer = createWithFraming(service(), token, padded(2 * BODY_BYTES_MAX), 'without an end');
      expectProblem(await within(answer, 'the response before the end'), 413, 'body_too_large');
    });
  });

  describe('the content type', () => {
    const good = JSON.stringify({ input_text: lesson(), model: 'test/first' });
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/problem+json', 'application/jsonp', 'json']) {
      it(`the content type ${type} is refused`, async () => {
        expectProblem(await createWith(good, { 'content-type': type }), 415, 'unsupported_media_type');
      });
    }

    it('a body without a content type is refused', async () => {
      const { token } = await signIn(service());
      const headers = { authorization: `Bearer ${token}`, connection: 'close' };
      // Bytes, because fetch sets the type of a string.
      const response = await fetch(`${service().url}/ai-sessions`, { method: 'POST', headers, body: Buffer.from(good) });
      assert.equal(response.status, 415);
      assert.equal(((await response.json()) as { code: string }).code, 'unsupported_media_type');
    });

    for (const type of ['application/json; charset=utf-8', 'application/json;charset="UTF-8"', 'Application/JSON ; charset=UTF-8']) {
      it(`the content type ${type} is accepted`, async () => {
        const created = await createWith(good, { 'content-type': type });
        assert.equal(created.status, 201, created.text);
      });
    }
  });

  describe('an invalid body', () => {
    const bad: Record<string, (token: string) => Promise<Answer>> = {
      malformed_json: (token) => create(service(), token, '{'),
      validation_failed: (token) => create(service(), token, { input_text: 'short', model: 'test/first' }),
      body_too_large: (token) => createWithFraming(service(), token, ' '.repeat(BODY_BYTES_MAX + 1), 'announced'),
      unsupported_media_type: (token) => create(service(), token, 'text', { 'content-type': 'text/plain' }),
    };

    it('an invalid body costs no generation, but counts as a request', async () => {
      const { world } = service();
      const user = await signIn(service());
      world.openrouter.requests.clear();
      let burst = 10;
      for (const [code, send] of Object.entries(bad)) {
        const refused = await send(user.token);
        assert.equal(refused.body.code, code);
        assert.equal(refused.headers.get('ratelimit-policy'), '"burst";q=10;w=60, "generations";q=50;w=86400, "attempts";q=150;w=86400');
        burst -= 1;
        assert.deepEqual(remaining(refused), { burst, generations: 50 });
      }
      assert.equal(world.openrouter.requests.total, 0);
      assert.deepEqual(await rowsOf(service(), user), { sessions: [], candidates: [], events: [] });
    });

    it('an invalid body beyond the burst is a 429', async () => {
      const { token } = await signIn(service());
      for (let n = 0; n < 10; n += 1) assert.equal((await create(service(), token, '{')).status, 400);
      for (const send of Object.values(bad)) expectProblem(await send(token), 429, 'rate_limited');
    });

    it('an invalid body with a wrong token is a 401', async () => {
      for (const send of Object.values(bad)) expectProblem(await send('wrong'), 401, 'invalid_token');
    });
  });
}

/** Sends without `fetch`, which always ends a body and always sends the length of a text. */
function createWithFraming(
  service: Service,
  token: string,
  body: string,
  framing: 'announced' | 'in chunks' | 'without an end',
): Promise<Answer> {
  const headers = {
    authorization: `Bearer ${token}`,
    'content-type': 'application/json',
    ...(framing === 'announced' ? { 'content-length': Buffer.byteLength(body) } : { 'transfer-encoding': 'chunked' }),
  };
  return new Promise((resolve, reject) => {
    const request = httpRequest(`${service.url}/ai-sessions`, { method: 'POST', headers, agent: false }, (response) => {
      text(response).then((text) => {
        const answered = new Headers(Object.entries(response.headers).map(([name, value]) => [name, String(value)]));
        resolve({ status: response.statusCode ?? 0, headers: answered, body: JSON.parse(text), text });
        request.destroy();
      }, reject);
    });
    request.on('error', reject);
    if (framing === 'without an end') request.write(body);
    else request.end(body);
  });
}

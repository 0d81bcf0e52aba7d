// Each behaviour of the model server sends the bytes that its name promises.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { createParser } from 'eventsource-parser';
import { createGate } from './gate.ts';
import * as behave from './model_behaviour.ts';
import type { ModelBehaviour } from './model_behaviour.ts';
import { startWorld, type World } from './world.ts';

const TEXT = Array.from({ length: 40 }, (_, i) => `Sentence number ${i} speaks of thing${i} in Straßburg.`).join(' ');

const SCHEMA = {
  type: 'json_schema',
  json_schema: {
    name: 'flashcards',
    strict: true,
    schema: { type: 'object', properties: { cards: { type: 'array', maxItems: 6, items: { type: 'object' } } } },
  },
};

type Chunk = {
  choices: { delta: { content?: string; refusal?: string }; finish_reason: string | null; error?: object }[];
  usage?: { cost: number };
  error?: { code: number | string };
};

type Stream = {
  status: number;
  type: string | null;
  text: string;
  cut: boolean;
  comments: number;
  chunks: Chunk[];
  done: boolean;
  content: string;
  finish_reason: string | null;
};

describe('the model server', () => {
  let world: World;
  before(async () => {
    world = await startWorld({ database: false });
  });
  after(() => world.close());
  afterEach(() => world.openrouter.reset());

  const complete = (more: object = {}, headers: Record<string, string> = {}, signal?: AbortSignal) =>
    fetch(`${world.openrouter.url}/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${world.openrouter.key}`, 'content-type': 'application/json', ...headers },
      body: JSON.stringify({
        model: 'some/model',
        stream: true,
        response_format: SCHEMA,
        messages: [
          { role: 'system', content: 'Make cards.' },
          { role: 'user', content: `<text-0a1b2c3d>\n${TEXT}\n</text-0a1b2c3d>` },
        ],
        ...more,
      }),
      ...(signal === undefined ? {} : { signal }),
    });

  /** Requests a completion with this behaviour and reads the stream to its end or cut. */
  async function stream(behaviour: ModelBehaviour): Promise<Stream> {
    world.openrouter.next(behaviour);
    const answer = await complete();
    const { text, cut } = await readAll(answer);
    const events: string[] = [];
    createParser({ onEvent: ({ data }) => events.push(data) }).feed(text);
    const isJson = (data: string) => data !== '[DONE]' && answer.headers.get('content-type') === 'text/event-stream';
    const chunks = events.filter(isJson).map((data) => JSON.parse(data) as Chunk);
    return {
      status: answer.status,
      type: answer.headers.get('content-type'),
      text,
      cut,
      comments: text.split(': OPENROUTER PROCESSING').length - 1,
      chunks,
      done: events.includes('[DONE]'),
      content: chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? '').join(''),
      finish_reason: chunks.map((chunk) => chunk.choices[0]?.finish_reason).findLast((reason) => reason != null) ?? null,
    };
  }

  const candidatesIn = (content: string) => (JSON.parse(content) as { cards: { source?: number[]; front: string; back: string }[] }).cards;

  it('candidates are streamed as by OpenRouter, with the schema’s names', async () => {
    const answer = await complete();
    assert.match(answer.headers.get('x-generation-id') ?? '', /^gen-/);
    await answer.body?.cancel();
    const whole = await stream(behave.goodAnswer);
    assert.equal(whole.comments, 3);
    assert.equal(candidatesIn(whole.content).length, 6);
    assert.equal(whole.finish_reason, 'stop');
    assert.deepEqual(whole.chunks.at(-1)?.choices, []);
    assert.ok((whole.chunks.at(-1)?.usage?.cost ?? 0) > 0);
    assert.ok(whole.done);
    assert.ok(whole.chunks.length > whole.content.length / 25, 'in small chunks');
  });

  it('a completion without stream is one document', async () => {
    const answer = (await (await complete({ stream: false })).json()) as { choices: { message: { content: string } }[] };
    assert.equal(candidatesIn(answer.choices[0]?.message.content ?? '').length, 6);
  });

  it('the text is found between delimiters, or is the whole message', async () => {
    for (const content of [`Text:\n=== 0a1b2c3d4e ===\n${TEXT}\n=== 0a1b2c3d4e ===`, TEXT]) {
      const body = { stream: false, messages: [{ role: 'user', content: [{ type: 'text', text: content }] }] };
      const answer = (await (await complete(body)).json()) as { choices: { message: { content: string } }[] };
      const [first] = candidatesIn(answer.choices[0]?.message.content ?? '');
      assert.match(first?.front ?? '', /^Sentence number 0 speaks of thing0 in ____\.$/);
    }
  });

  it('cards name the numbers of their sentences', async () => {
    const numbered = TEXT.split(/(?<=\.) /).map((sentence, index) => `${index + 1} ${sentence}`).join('\n');
    const line = `TEXT ${'0a1b'.repeat(8)}`;
    const messages = [{ role: 'user', content: `${line}\n${numbered}\n${line}` }];
    const cards = async () => {
      const answer = (await (await complete({ stream: false, messages })).json()) as { choices: { message: { content: string } }[] };
      return candidatesIn(answer.choices[0]?.message.content ?? '');
    };
    const sources = (await cards()).map(({ source, front }) => [source, /number (\d+)/.exec(front)?.[1]]);
    assert.equal(sources.length, 6);
    for (const [source, number] of sources) assert.deepEqual(source, [Number(number) + 1]);
    world.openrouter.next(behave.inventedCards);
    for (const { back } of await cards()) assert.ok(!TEXT.includes(back));
  });

  it('a completion requires the API key', async () => {
    for (const authorization of ['', 'Bearer sk-or-v1-wrong']) {
      const answer = await complete({}, { authorization });
      assert.equal(answer.status, 401);
      assert.equal(((await answer.json()) as Chunk).error?.code, 401);
      assert.equal((await fetch(`${world.openrouter.url}/key`, { headers: { authorization } })).status, 401);
    }
    const known = await fetch(`${world.openrouter.url}/key`, { headers: { authorization: `Bearer ${world.openrouter.key}` } });
    assert.equal(known.status, 200);
    world.openrouter.onKey(behave.httpError(503));
    assert.equal((await fetch(`${world.openrouter.url}/key`)).status, 503);
  });

  describe('failures before the first byte', () => {
    for (const status of [400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504]) {
      it(`an HTTP ${status} has OpenRouter's format`, async () => {
        world.openrouter.next(behave.httpError(status, { retry_after_s: 7 }));
        const answer = await complete();
        assert.equal(answer.status, status);
        assert.equal(answer.headers.get('retry-after'), '7');
        const { error } = (await answer.json()) as { error: { code: number; metadata: { error_type: string } } };
        assert.equal(error.code, status);
        assert.match(error.metadata.error_type, /^[a-z_]+$/);
      });
    }

    const whole: [string, ModelBehaviour, RegExp][] = [
      ['HTML', behave.htmlPage(200), /^<!DOCTYPE html>/],
      ['an error in 200', behave.errorIn200(429), /^\{"error":\{"code":429,.*"error_type":"rate_limit_exceeded"/],
      ['an error in 200 whose code is a string', behave.errorIn200('server_error'), /"code":"server_error"/],
      ['no provider', behave.unavailable('constraint_filtered'), /"availability":\{"code":"constraint_filtered","retryable":false/],
      ['a choice with an error', behave.choiceError(502, '{"cards":['), /"finish_reason":"error".*"error":\{"code":502/],
      ['a plain completion', behave.plainCompletion(), /"object":"chat\.completion".*\\"front\\"/],
    ];
    for (const [name, behaviour, expected] of whole) {
      it(`the model server answers with ${name}`, async () => {
        const { status, text } = await stream(behaviour);
        assert.equal(status, 200);
        assert.match(text, expected);
      });
    }

    it('the model server cuts a connection before the headers', async () => {
      world.openrouter.next(behave.cutBeforeHeaders);
      await assert.rejects(complete(), TypeError);
      assert.equal(await (await world.openrouter.arrived(1)).over, 'server cut');
    });

    it('the model server can be down and up again', async () => {
      world.openrouter.down();
      await assert.rejects(complete(), TypeError);
      world.openrouter.up();
      const answer = await complete();
      assert.equal(answer.status, 200);
      await answer.body?.cancel();
    });
  });

  describe('failures in the stream', () => {
    it('an error event is sent before or after candidates', async () => {
      const before = await stream(behave.errorEvent());
      assert.equal(before.content, '');
      assert.equal(before.chunks.at(-1)?.error?.code, 502);
      assert.equal(before.finish_reason, 'error');
      const after = await stream(behave.errorEvent({ after_candidates: 2, plus_chars: 20, code: 'server_error', choices: 'empty' }));
      assert.equal(candidatesIn(`${after.content.slice(0, after.content.lastIndexOf('}') + 1)}]}`).length, 2);
      assert.deepEqual(after.chunks.at(-1)?.choices, []);
      assert.equal(after.chunks.at(-1)?.error?.code, 'server_error');
      assert.equal(after.done, false);
    });

    it('a stream is cut after candidates, in a candidate or after bytes', async () => {
      const afterTwo = await stream(behave.cutAfter(2, 10));
      assert.ok(afterTwo.cut);
      assert.equal(afterTwo.finish_reason, null);
      assert.equal(candidatesIn(`${afterTwo.content.slice(0, afterTwo.content.lastIndexOf('}') + 1)}]}`).length, 2);
      for (const bytes of [1, 10, 500]) {
        const { cut, text } = await stream(behave.cutAfterBytes(bytes));
        assert.ok(cut);
        assert.equal(Buffer.byteLength(text), bytes);
      }
    });

    it('a stream ends without [DONE], with or without a finish_reason', async () => {
      const withReason = await stream(behave.withoutDone());
      assert.deepEqual([withReason.done, withReason.finish_reason], [false, 'stop']);
      const without = await stream(behave.withoutDone({ finish_reason: null, whole_candidates: 1 }));
      assert.deepEqual([without.done, without.finish_reason], [false, null]);
    });

    it('the token limit and the filter end an answer within a candidate', async () => {
      for (const [behaviour, reason] of [
        [behave.cutByLength(3), 'length'],
        [behave.cutByLength(3, 'stop'), 'stop'],
        [behave.contentFilter(3), 'content_filter'],
      ] as const) {
        const { content, finish_reason, done } = await stream(behaviour);
        assert.equal(finish_reason, reason);
        assert.ok(done);
        assert.throws(() => candidatesIn(content), SyntaxError);
        assert.equal(candidatesIn(`${content.slice(0, content.lastIndexOf('}') + 1)}]}`).length, 3);
      }
      assert.equal((await stream(behave.contentFilter())).content, '{"cards":[');
    });

    it('a refusal is streamed in its own member', async () => {
      const { chunks, content } = await stream(behave.refusal('I cannot.'));
      assert.equal(content, '');
      assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.refusal ?? '').join(''), 'I cannot.');
    });

    for (const [name, behaviour, firstBytes] of [
      ['silence without headers', behave.silence({ headers: false }), null],
      ['silence after headers', behave.silence({ headers: true }), ''],
      ['silence after candidates', behave.answer({ whole_candidates: 1, instead_of_end: 'silence' }), 'prompt'],
      ['only comments', behave.onlyComments(10), ': OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING'],
      ['comments after candidates', behave.answer({ whole_candidates: 1, comments: 0, instead_of_end: 'comments' }), ': OPENROUTER'],
      ['a slow drip', behave.slowDrip(20), 'data: '],
    ] as const) {
      it(`the model server sends ${name} until the client leaves`, async () => {
        world.openrouter.next(behaviour);
        const leave = new AbortController();
        const pending = complete({}, {}, leave.signal);
        const request = await world.openrouter.arrived(1);
        if (firstBytes !== null) await readUntil(await pending, firstBytes);
        leave.abort();
        await pending.catch(() => {});
        assert.equal(await world.openrouter.aborted(1), request);
        assert.equal(request.end, 'client left');
      });
    }
  });

  describe('other formats of the message', () => {
    it('a message is sent in fences, in prose, as an array or as given', async () => {
      const fenced = (await stream(behave.fenced)).content;
      assert.ok(fenced.startsWith('```json\n{') && fenced.endsWith('}\n```'));
      assert.match((await stream(behave.inProse)).content, /^Sure! .*\n\n\{"cards":\[[\s\S]*\n\nTell me/);
      assert.equal((JSON.parse((await stream(behave.bareArray)).content) as object[]).length, 6);
      assert.equal((await stream(behave.content('{}'))).content, '{}');
      const parts = await stream(behave.content(['{"ca', 'rds":[', ']}']));
      assert.equal(parts.content, '{"cards":[]}');
      assert.deepEqual(candidatesIn((await stream(behave.answer({ candidates: [{ front: 'f' }] }))).content), [{ front: 'f' }]);
    });

    it('raw bytes are sent in chunks of any size, broken UTF-8 included', async () => {
      world.openrouter.next(behave.raw(Uint8Array.of(0x64, 0xff, 0xc3), { chunk_bytes: 1, content_type: 'text/plain', status: 206 }));
      const answer = await complete();
      assert.equal(answer.status, 206);
      assert.deepEqual(new Uint8Array(await answer.arrayBuffer()), Uint8Array.of(0x64, 0xff, 0xc3));
    });

    for (const line_end of ['\n', '\r\n', '\r'] as const) {
      it(`a stream is sent byte by byte, lines ending with ${JSON.stringify(line_end)}`, async () => {
        const { content, done, text } = await stream(behave.inChunksOf(1, { line_end }));
        assert.equal(candidatesIn(content).length, 6);
        assert.ok(done);
        assert.ok(text.includes(`[DONE]${line_end}${line_end}`));
      });
    }

    for (const kind of ['candidates', 'string', 'line'] as const) {
      it(`a huge answer has five megabytes of ${kind}`, async () => {
        world.openrouter.next(behave.huge(kind));
        const { text } = await readAll(await complete());
        assert.ok(text.length >= 5 * 1024 * 1024);
      });
    }
  });

  it('a gate holds the answer before the first byte and between candidates', async () => {
    const atStart = createGate();
    const afterTwo = createGate();
    world.openrouter.next(behave.gated(atStart, behave.answer({ hold: { gate: afterTwo, after_candidates: 2 } })));
    const pending = complete();
    await atStart.reached;
    atStart.open();
    const answer = await pending;
    await afterTwo.reached;
    afterTwo.open();
    const { text } = await readAll(answer);
    assert.ok(text.endsWith('data: [DONE]\n\n'));
  });

  it('behaviours are queued, then the standing one applies', async () => {
    world.openrouter.always(behave.httpError(503));
    world.openrouter.next(behave.httpError(429), 2);
    world.openrouter.next(behave.httpError(402));
    const statuses: number[] = [];
    for (let i = 0; i < 5; i += 1) {
      const answer = await complete({ seed: i });
      statuses.push(answer.status);
      await answer.body?.cancel();
    }
    assert.deepEqual(statuses, [429, 429, 402, 503, 503]);
    assert.equal(world.openrouter.requests.total, 5);
    assert.equal(world.openrouter.requests.recent[3]?.body?.['seed'], 3);
    assert.equal(world.openrouter.requests.recent[3]?.headers['authorization'], `Bearer ${world.openrouter.key}`);
  });
});

async function readAll(answer: Response): Promise<{ text: string; cut: boolean }> {
  const decoder = new TextDecoder();
  let text = '';
  try {
    for await (const bytes of answer.body ?? []) text += decoder.decode(bytes as Uint8Array, { stream: true });
    return { text, cut: false };
  } catch {
    return { text, cut: true };
  }
}

/** Reads until the text has arrived; the rest stays unread. */
async function readUntil(answer: Response, wanted: string): Promise<void> {
  const reader = answer.body?.getReader();
  let text = '';
  while (!text.includes(wanted)) {
    const { value, done } = (await reader?.read()) ?? { done: true };
    assert.ok(!done, 'the stream ended early');
    text += Buffer.from(value ?? []).toString('utf8');
  }
}

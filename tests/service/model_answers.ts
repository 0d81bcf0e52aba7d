// Odd answers with candidates: broken off, cut anywhere, in another format, in odd chunks, with invalid candidates. Complete
// candidates are kept, the session is partial where the answer was, and an invalid candidate is dropped alone.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  answer,
  bareArray,
  choiceError,
  content,
  contentFilter,
  cutAfter,
  cutByLength,
  errorEvent,
  fenced,
  huge,
  inBursts,
  inChunksOf,
  inProse,
  type ModelBehaviour,
  plainCompletion,
  raw,
  withoutDone,
} from '../support/model_behaviour.ts';
import { AT_ONCE, expectCandidates, expectFailed, expectConnectionClosed, type Meet, meeting } from './model_failures.ts';
import type { StartService } from './service.ts';

export function tests(start: StartService): void {
  describe('with the default variables', () => {
    const meet = meeting(start);
    describe('an answer that breaks off', { concurrency: AT_ONCE }, () => brokenOff(meet));
    describe('a complete answer', { concurrency: AT_ONCE }, () => whole(meet));
    describe('an answer in another format', { concurrency: AT_ONCE }, () => otherFormats(meet));
    describe('an odd candidate', { concurrency: AT_ONCE }, () => oddCandidates(meet));
  });
  describe('with one attempt and five candidates', () => {
    const meet = meeting(start, { AI_MAX_ATTEMPTS: '1', MAX_CANDIDATES: '5' });
    describe('a cut connection', { concurrency: AT_ONCE }, () => cutAnywhere(meet));
    describe('the border of a chunk', { concurrency: AT_ONCE }, () => borders(meet));
    describe('an endless answer', { concurrency: 2 }, () => withoutEnd(meet));
    describe('more candidates than are allowed', { concurrency: AT_ONCE }, () => tooManyCandidates(meet));
  });
}

type Candidate = { front: string; back: string; prompt: string };

function brokenOff(meet: Meet): void {
  const codes = [502, '502', 'server_error', 401, '402', 'rate_limit_exceeded', 'content_policy_violation'];
  const partial: [name: string, behaviour: ModelBehaviour][] = [
    ['the token limit', cutByLength(3)],
    ['the token limit with the reason "stop"', cutByLength(3, 'stop')],
    ['the token limit with the reason "tool_calls"', cutByLength(3, 'tool_calls')],
    ['the token limit with an unknown reason', cutByLength(3, 'max_output_reached')],
    ['the filter', contentFilter(3)],
    ['the reason "error"', cutByLength(3, 'error')],
    ...codes.map((code): [string, ModelBehaviour] => [`the error ${JSON.stringify(code)}`, errorEvent({ after_candidates: 3, plus_chars: 10, code, error_type: null })]),
    ['an error event without choices', errorEvent({ after_candidates: 3, choices: 'empty', code: 'server_error' })],
    ['an error event and a [DONE]', errorEvent({ after_candidates: 3, done: true })],
    ['a cut in a candidate', cutAfter(3, 10)],
    ['a cut between two candidates', cutAfter(3)],
    ['an end without a reason', withoutDone({ finish_reason: null, whole_candidates: 3 })],
    ['[DONE] too soon', withoutDone({ whole_candidates: 3 })],
    ['a refusal after candidates', refusalAfter],
    ['an invalid chunk', unreadableAfter],
    ['a plain completion that reached the token limit', plainCompletion({ whole_candidates: 3, plus_chars: 12, finish_reason: 'length' })],
    ['a choice with an error', choiceError(502, `{"candidates":[${[1, 2, 3].map((n) => JSON.stringify(numbered(n))).join()},{"fro`)],
  ];
  for (const [name, behaviour] of partial) {
    it(`an answer ended by ${name} keeps its candidates without another call`, async () => {
      await expectCandidates(await meet(behaviour), { partial: true, candidates: 3 });
    });
  }

  it('an answer ended at 5 MB keeps the allowed candidates', async () => {
    const met = await meet(huge('candidates'));
    await expectCandidates(met, { partial: true, candidates: 20 });
  });
}

const refusalAfter: ModelBehaviour = async (turn) => {
  turn.streamHead();
  await turn.chunk({ content: `{"candidates":[${[1, 2, 3].map((n) => JSON.stringify(numbered(n))).join()},` });
  await turn.chunk({ refusal: 'I cannot go on with that.' }, 'stop');
  await turn.event('[DONE]');
  turn.end();
};

/** The content of that chunk is missing: the two ends of the gap must not be joined to a candidate. */
const unreadableAfter: ModelBehaviour = async (turn) => {
  turn.streamHead();
  await turn.chunk({ content: `{"candidates":[${[1, 2, 3].map((n) => JSON.stringify(numbered(n))).join()},{"front":"joined","back":"` });
  await turn.event('{"choices":[{"delta":{"content":"the mid');
  await turn.chunk({ content: 'end","prompt":"p"}]}' }, 'stop');
  await turn.event('[DONE]');
  turn.end();
};

const numbered = (n: number): Candidate => ({ front: `front ${n}`, back: `back ${n}`, prompt: `prompt ${n}` });

function whole(meet: Meet): void {
  // More pauses than a host splits a stream for, each longer than the deadline of a batch.
  it('an answer with fourteen pauses is complete', async () => {
    await expectCandidates(await meet(inBursts(14, 300)), { partial: false, candidates: 20 });
  });

  const ends: [name: string, behaviour: ModelBehaviour][] = [
    ['without [DONE]', withoutDone()],
    ['without [DONE] and without a reason', withoutDone({ finish_reason: null })],
    ['by a cut', answer({ instead_of_end: 'cut' })],
    ['with the reason "length"', answer({ finish_reason: 'length' })],
    ['with the reason "content_filter"', answer({ finish_reason: 'content_filter' })],
    ['with the reason "error"', answer({ finish_reason: 'error' })],
    ['with the reason "tool_calls"', answer({ finish_reason: 'tool_calls' })],
    ['with an error event', errorAfterTheEnd],
  ];
  for (const [name, behaviour] of ends) {
    it(`an answer that ends ${name} after closed JSON is complete`, async () => {
      await expectCandidates(await meet(behaviour), { partial: false, candidates: 20 });
    });
  }

  it('usage and the provider’s model are stored if the answer has them', async () => {
    const silent = await expectCandidates(await meet(answer({ usage: false })), { partial: false, candidates: 20 });
    assert.deepEqual([silent['prompt_tokens'], silent['completion_tokens'], silent['cost'], silent['event'].usage], [null, null, null, undefined]);
    const stored = await expectCandidates(await meet(answer()), { partial: false, candidates: 20 });
    assert.ok(stored['prompt_tokens'] > 0 && Number(stored['cost']) > 0);
    assert.deepEqual([stored['completion_tokens'], stored['model'], stored['event'].served_model], [400, 'test/first', 'test/first']);
  });

  it('an answer with impossible usage is stored without it', async () => {
    for (const usage of [
      { prompt_tokens: 1e30, completion_tokens: -1, cost: -5 },
      { prompt_tokens: '12', completion_tokens: null, cost: 'free' },
      { prompt_tokens: 2 ** 31, completion_tokens: 2 ** 53, cost: 1e300 },
    ]) {
      await expectCandidates(
        await meet((turn) => {
          const message = { role: 'assistant', content: JSON.stringify({ candidates: [numbered(1)] }) };
          turn.reply(200, { model: 'm'.repeat(1000), choices: [{ message, finish_reason: 'stop' }], usage });
        }),
        { partial: false, candidates: [numbered(1)] },
      );
    }
  });

  it('the event names the model that answered', async () => {
    const row = await expectCandidates(
      await meet((turn) => {
        const message = { role: 'assistant', content: JSON.stringify({ candidates: [numbered(1)] }) };
        turn.reply(200, { model: 'other/served', choices: [{ message, finish_reason: 'stop' }] });
      }),
      { partial: false, candidates: 1 },
    );
    assert.deepEqual([row['model'], row['event'].served_model], ['test/first', 'other/served']);
  });
}

const errorAfterTheEnd: ModelBehaviour = async (turn) => {
  turn.streamHead();
  await turn.chunk({ content: JSON.stringify({ candidates: turn.candidates() }) });
  await turn.errorEvent({ code: 502, message: 'stand-in' }, []);
  turn.end();
};

function otherFormats(meet: Meet): void {
  const answers: [name: string, behaviour: ModelBehaviour][] = [
    ['one JSON document in place of a stream', plainCompletion()],
    ['one JSON document with a charset', plainWith('application/json; charset=utf-8')],
    ['one JSON document of type text/plain', plainWith('text/plain')],
    ['content in parts', parts],
    ['code fences', fenced],
    ['prose around it', inProse],
    ['prose around it, in one JSON document', plainCompletion({ around: ['Here [1] {you} go:\n', '\nBye "now" }'] })],
    ['a list without its object', bareArray],
    ['a list in code fences', answer({ bare_array: true, around: ['```\n', '\n```'] })],
    ['a list by another name', otherName],
    ['white space wherever JSON allows it', spacedOut],
    ['no comments', answer({ comments: 0 })],
    ['many comments', answer({ comments: 100 })],
    ['one chunk', answer({ content_bytes: 1_000_000 })],
    ['a chunk for each character', answer({ content_bytes: 1 })],
    ['chunks of one byte', inChunksOf(1)],
    ['lines that end with CR LF, in chunks of seven bytes', inChunksOf(7, { line_end: '\r\n' })],
    ['lines that end with CR', inChunksOf(1000, { line_end: '\r' })],
  ];
  for (const [name, behaviour] of answers) {
    it(`an answer with ${name} is read`, async () => {
      await expectCandidates(await meet(behaviour), { partial: false, candidates: 20 });
    });
  }
}

const plainWith = (content_type: string): ModelBehaviour => (turn) => {
  const message = { role: 'assistant', content: JSON.stringify({ candidates: turn.candidates() }) };
  turn.reply(200, { choices: [{ message, finish_reason: 'stop' }] }, { 'content-type': content_type });
};

const parts: ModelBehaviour = (turn) => {
  const text = JSON.stringify({ candidates: turn.candidates() });
  const content = [{ type: 'text', text: text.slice(0, 99) }, { type: 'text', text: text.slice(99) }];
  turn.reply(200, { choices: [{ message: { role: 'assistant', content }, finish_reason: 'stop' }] });
};

const otherName: ModelBehaviour = (turn) =>
  answer({ content: JSON.stringify({ note: 'as requested: [{"front":"no card"}]', count: 20, flashcards: turn.candidates() }) })(turn);

const spacedOut: ModelBehaviour = (turn) => answer({ content: JSON.stringify({ candidates: turn.candidates() }, null, '\t').replaceAll('\n', '\r\n ') })(turn);

function oddCandidates(meet: Meet): void {
  const good = numbered(1);
  const last = numbered(2);
  const x = (count: number, c = 'x') => c.repeat(count);

  // Each stands between two valid candidates, which are kept.
  const dropped: [name: string, json: string][] = [
    ['an empty object', '{}'],
    ['null', 'null'],
    ['a number', '7'],
    ['a string', '"front, back, prompt"'],
    ['a list', '["f","b","p"]'],
    ['a missing prompt', '{"front":"f","back":"b"}'],
    ['a number for its front', '{"front":7,"back":"b","prompt":"p"}'],
    ['null for its back', '{"front":"f","back":null,"prompt":"p"}'],
    ['a list for its prompt', '{"front":"f","back":"b","prompt":["p"]}'],
    ['an object for its front', '{"front":{"text":"f"},"back":"b","prompt":"p"}'],
    ['an empty front', '{"front":"","back":"b","prompt":"p"}'],
    ['a back of white space', '{"front":"f","back":" \\n\\t","prompt":"p"}'],
    ['a prompt of U+0000', '{"front":"f","back":"b","prompt":"\\u0000"}'],
    ['a front of 201 characters', JSON.stringify({ ...last, front: x(201) })],
    ['a back of 501 characters', JSON.stringify({ ...last, back: x(501) })],
    ['a prompt of 501 emoji', JSON.stringify({ ...last, prompt: x(501, '😀') })],
    ['a front of 900 KB', JSON.stringify({ ...last, front: x(900_000) })],
    ['a repeated front', JSON.stringify({ ...last, front: good.front })],
    ['a front repeated in other case and white space', JSON.stringify({ ...last, front: ` FRONT \n 1` })],
    ['two fronts', '{"front":"f","front":"g","back":"b","prompt":"p"}'],
    ['no letter and no digit', '{"front":"...","back":"\u2026","prompt":"?"}'],
  ];
  for (const [name, json] of dropped) {
    it(`a candidate with ${name} is dropped alone and counted`, async () => {
      const message = `{"candidates":[${JSON.stringify(good)},${json},${JSON.stringify(last)}]}`;
      await expectCandidates(await meet(answer({ content: message, content_bytes: 1000 })), { partial: false, candidates: [good, last], dropped: 1 });
    });
  }

  const kept: [name: string, json: string, candidate: Candidate][] = [
    ['fields of the greatest length', JSON.stringify({ front: x(200, '😀'), back: x(500, 'é'), prompt: x(500) }), { front: x(200, '😀'), back: x(500, 'é'), prompt: x(500) }],
    ['white space around it', '{"front":" f\\r\\n","back":"\\tb","prompt":"p\\u00a0"}', { front: 'f', back: 'b', prompt: 'p' }],
    ['U+0000 and other controls in it', '{"front":"a\\u0000b","back":"\\u0007b\\u009f","prompt":"p\\u007f"}', { front: 'ab', back: 'b', prompt: 'p' }],
    ['hidden characters', '{"front":"\\ufefff","back":"b\\udb40\\udc41","prompt":"p"}', { front: 'f', back: 'b', prompt: 'p' }],
    ['a lone surrogate', '{"front":"a\\ud83db","back":"\\udc00","prompt":"p"}', { front: 'a\uFFFDb', back: '\uFFFD', prompt: 'p' }],
    ['a raw line end, which JSON forbids', '{"front":"a\nb","back":"b","prompt":"p"}', { front: 'a\nb', back: 'b', prompt: 'p' }],
    ['line ends', '{"front":"a\\r\\nb\\rc","back":"b","prompt":"p"}', { front: 'a\nb\nc', back: 'b', prompt: 'p' }],
    ['an invalid escape', '{"front":"\\x41","back":"b","prompt":"p"}', { front: '\\x41', back: 'b', prompt: 'p' }],
    ['a list around it in the list', JSON.stringify([numbered(3)]), numbered(3)],
    ['unknown members', '{"id":1,"front":"f","tags":["a",{"b":[]}],"back":"b","prompt":"p"}', { front: 'f', back: 'b', prompt: 'p' }],
    ['markup and JSON in its fields', '{"front":"<b>{\\"front\\":[</b>","back":"```}]","prompt":"\\\\\\"]"}', { front: '<b>{"front":[</b>', back: '```}]', prompt: '\\"]' }],
  ];
  for (const [name, json, candidate] of kept) {
    it(`a candidate with ${name} is kept`, async () => {
      await expectCandidates(await meet(content(`{"candidates":[${json}]}`)), { partial: false, candidates: [candidate], dropped: 0 });
    });
  }

  const bytes = (...text: (string | number[])[]) => Buffer.concat(text.map((part) => (typeof part === 'string' ? Buffer.from(part) : Buffer.from(part))));
  const BEFORE = 'data: {"choices":[{"delta":{"content":"{\\"candidates\\":[{\\"front\\":\\"a';
  const AFTER = 'b\\",\\"back\\":\\"b\\",\\"prompt\\":\\"p\\"}]}"}}]}\n\ndata: [DONE]\n\n';
  for (const [name, broken, front] of [
    ['a byte that begins nothing', [0xff], 'a\uFFFDb'],
    ['a character without its end', [0xe2, 0x82], 'a\uFFFDb'],
    ['an emoji without its end', [0xf0, 0x9f, 0x98], 'a\uFFFDb'],
    ['an end without its beginning', [0x80, 0x80], 'a\uFFFD\uFFFDb'],
    ['more bytes than a character needs', [0xc0, 0xaf], 'a\uFFFD\uFFFDb'],
  ] as const) {
    it(`a candidate with broken UTF-8 (${name}) has U+FFFD in its place`, async () => {
      const met = await meet(raw(bytes(BEFORE, [...broken], AFTER)));
      await expectCandidates(met, { partial: false, candidates: [{ front, back: 'b', prompt: 'p' }] });
    });
  }
}

/** A stream in which each candidate is one event, and the content of its prefixes. */
function candidateStream(candidates: Candidate[], line_end: string): Buffer {
  const event = (data: object | string) => `data: ${typeof data === 'string' ? data : JSON.stringify(data)}${line_end}${line_end}`;
  const said = (content: string) => event({ choices: [{ index: 0, delta: { content }, finish_reason: null }] });
  return Buffer.from(
    [
      `: OPENROUTER PROCESSING${line_end}${line_end}`,
      ...candidates.map((candidate, i) => said((i === 0 ? '{"candidates":[' : ',') + JSON.stringify(candidate))),
      said(']}'),
      event({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }),
      event({ choices: [], usage: { prompt_tokens: 1, completion_tokens: 2, cost: 0.5 } }),
      event('[DONE]'),
    ].join(''),
  );
}

const MULTI_BYTE: Candidate[] = [
  { front: 'Что такое “вода”? 😀', back: '水は H₂O です。\r\n"quoted" \\ / \u0001', prompt: 'é e\u0301 ﷽ 👩‍👩‍👧' },
  { front: 'ἀρχή', back: '\u2028\u2029 end', prompt: '🏳️‍🌈' },
  { front: 'third', back: 'back', prompt: 'prompt' },
];
/** After sanitizing. */
const MULTI_BYTE_GIVEN = MULTI_BYTE.map((candidate, i) => (i === 0 ? { ...candidate, back: '水は H₂O です。\n"quoted" \\ /' } : i === 1 ? { ...candidate, back: 'end' } : candidate));

function cutAnywhere(meet: Meet): void {
  const candidates = [numbered(1), numbered(2), numbered(3)];
  const stream = candidateStream(candidates, '\n');
  const text = stream.toString();
  const dataEnds = [...text.matchAll(/data: .*/g)].map((line) => line.index + line[0].length);

  // Every 37 bytes, and each border of an event with the bytes around it.
  const places = new Set(Array.from({ length: Math.ceil(stream.length / 37) }, (_, i) => i * 37));
  for (const end of dataEnds) for (const near of [end - 1, end, end + 1, end + 2]) places.add(near);
  const whole = (place: number) => dataEnds.filter((end) => end <= place).length;

  for (const place of [...places].sort((a, b) => a - b)) {
    const events = whole(place);
    const outcome = events === 0 ? 'nothing' : events <= 3 ? `the first ${events} of 3 candidates` : 'all of it';
    it(`a cut after ${place} of ${stream.length} bytes keeps ${outcome}`, async () => {
      const met = await meet(raw(stream.subarray(0, place), { then: 'cut' }));
      if (events === 0) await expectFailed(met, 'ai_unavailable', 1);
      else await expectCandidates(met, { partial: events <= 3, candidates: candidates.slice(0, events) });
    });
  }
}

function borders(meet: Meet): void {
  for (const [name, line_end] of [['LF', '\n'], ['CR LF', '\r\n'], ['CR', '\r']] as const) {
    const stream = candidateStream(MULTI_BYTE, line_end);
    for (const size of [1, 2, 3, 5]) {
      it(`chunks of ${size} bytes may split anything (${name})`, async () => {
        await expectCandidates(await meet(raw(stream, { chunk_bytes: size })), { partial: false, candidates: MULTI_BYTE_GIVEN });
      });
    }
  }

  it('chunks of one character split escapes of the content', async () => {
    const json = `{"candidates":[{"front":"\\ud83d\\ude00 \\u00e9","back":"\\"\\\\","prompt":"p"}]}`;
    await expectCandidates(await meet(content([...json])), { partial: false, candidates: [{ front: '😀 é', back: '"\\', prompt: 'p' }] });
  });

  it('two chunks may split a surrogate pair', async () => {
    const torn: ModelBehaviour = async (turn) => {
      turn.streamHead();
      // JSON.stringify escapes a lone surrogate, as servers do that cut in UTF-16.
      for (const content of ['[{"front":"a\ud83d', '\ude00b","back":"b","prompt":"p"}]']) await turn.chunk({ content });
      await turn.event('[DONE]');
      turn.end();
    };
    await expectCandidates(await meet(torn), { partial: false, candidates: [{ front: 'a😀b', back: 'b', prompt: 'p' }] });
  });
}

function tooManyCandidates(meet: Meet): void {
  it('surplus candidates are dropped and counted', async () => {
    const candidates = Array.from({ length: 9 }, (_, n) => numbered(n));
    await expectCandidates(await meet(answer({ candidates })), { partial: false, candidates: candidates.slice(0, 5), dropped: 4 });
  });
}

/** More than the buffers in between, so that the test sees which side closes; an answer is read up to 4 MiB. */
const LONG_BYTES = 32 * 1024 * 1024;

/** Repeats the same bytes. */
const repeated = (status: number, content_type: string, filler: string, beginning = ''): ModelBehaviour => async (turn) => {
  turn.head(status, { 'content-type': content_type });
  await turn.write(beginning);
  const chunk = filler.repeat(Math.ceil(65_536 / filler.length));
  for (let sent = 0; sent < LONG_BYTES; sent += chunk.length) await turn.write(chunk);
  turn.end();
};

function withoutEnd(meet: Meet): void {
  const answers: [name: string, behaviour: ModelBehaviour, code: string][] = [
    ['one string', huge('string', LONG_BYTES), 'ai_invalid_response'],
    ['prose', answer({ content: 'I go on and on. '.repeat(LONG_BYTES / 16), content_bytes: 16_384 }), 'ai_invalid_response'],
    ['one line', repeated(200, 'text/event-stream', 'x', 'data: '), 'ai_invalid_response'],
    ['comments', repeated(200, 'text/event-stream', ': OPENROUTER PROCESSING\n\n'), 'ai_invalid_response'],
    ['blank lines', repeated(200, 'text/event-stream', '\n'), 'ai_invalid_response'],
    ['JSON', repeated(200, 'application/json', ' ', '{"choices":['), 'ai_invalid_response'],
    ['HTML', repeated(200, 'text/html', '<p>x</p>'), 'ai_invalid_response'],
    ['an error', repeated(503, 'application/json', ' ', '{"error":'), 'ai_unavailable'],
    ['a final error', repeated(402, 'text/html', '<p>x</p>'), 'ai_misconfigured'],
  ];
  for (const [name, behaviour, code] of answers) {
    it(`an endless answer of ${name} is ${code} and its connection is closed`, async () => {
      const met = await meet(behaviour);
      await expectFailed(met, code, 1);
      await expectConnectionClosed(met);
    });
  }

  it('an endless answer of candidates keeps the allowed ones', async () => {
    const met = await meet(huge('candidates', LONG_BYTES));
    await expectCandidates(met, { partial: true, candidates: 5 });
    await expectConnectionClosed(met);
  });
}

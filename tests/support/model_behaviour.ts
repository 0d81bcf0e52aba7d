// Behaviours of the model server: the good one, and the failures of OpenRouter, each by name. A behaviour is a function
// that writes one answer; tests may define their own.

import type { Candidate } from './candidate_maker.ts';
import type { Gate } from './gate.ts';
import {
  type Answer,
  answer,
  completion,
  compose,
  endStream,
  errorBody,
  goodAnswer,
  type ModelBehaviour,
  splitContent,
  streamMessage,
  streamText,
} from './model_answer.ts';

export { type Answer, answer, goodAnswer, type ModelBehaviour } from './model_answer.ts';

/** A model that invents: cards whose facts are in no text, with the numbers of sentences that exist. */
export const inventedCards: ModelBehaviour = answer({
  candidates: [
    { source: [1], front: 'Who built the lighthouse of Aldermoor?', back: 'Cornelius Vandermeer, in 1873', prompt: 'Tests a builder.' },
    { source: [2], front: 'How deep is the Trench of Ysolde?', back: '7,450 fathoms', prompt: 'Tests a depth.' },
    { source: [99], front: 'Which metal does the Halvorsen process yield?', back: 'Ruthenium', prompt: 'Tests a process.' },
  ],
});

// Before the first byte

/** An HTTP error as of OpenRouter. `error_type` null omits the metadata. */
export function httpError(
  status: number,
  wanted: { error_type?: string | null; message?: string; retry_after_s?: number | string } = {},
): ModelBehaviour {
  return (turn) => {
    const headers = wanted.retry_after_s === undefined ? {} : { 'retry-after': String(wanted.retry_after_s) };
    turn.reply(status, { error: errorBody(status, wanted), user_id: 'user_stand_in' }, headers);
  };
}

/** The page of a proxy. */
export function htmlPage(status = 502): ModelBehaviour {
  return (turn) =>
    turn.reply(status, `<!DOCTYPE html><html><head><title>${status}</title></head><body><h1>${status}</h1></body></html>`, {
      'content-type': 'text/html; charset=UTF-8',
    });
}

/** HTTP 200 with the error in its body. */
export function errorIn200(
  code: number | string,
  wanted: { error_type?: string | null; message?: string } = {},
): ModelBehaviour {
  return (turn) => turn.reply(200, { error: errorBody(code, wanted), user_id: 'user_stand_in' });
}

/** An availability error: no code, but `availability`. Only `constraint_filtered` is not retryable. */
export function unavailable(code: string, wanted: { retryable?: boolean; retry_after_s?: number } = {}): ModelBehaviour {
  return (turn) =>
    turn.reply(200, {
      error: {
        message: 'No provider is available',
        availability: {
          code,
          retryable: wanted.retryable ?? code !== 'constraint_filtered',
          ...(wanted.retry_after_s === undefined ? {} : { retry_after: wanted.retry_after_s }),
        },
      },
    });
}

/** A provider's failure in a plain completion: HTTP 200, finish_reason `error`, the message so far. */
export function choiceError(code: number | string = 502, partial_content = ''): ModelBehaviour {
  return (turn) => {
    const whole = completion(turn, partial_content, 'error');
    const choices = whole.choices.map((choice) => ({ ...choice, error: errorBody(code, {}) }));
    turn.reply(200, { ...whole, choices });
  };
}

/** A plain JSON completion, though a stream was requested. */
export function plainCompletion(wanted: Answer = {}): ModelBehaviour {
  return (turn) => {
    const content = compose(turn, wanted).chunks.map(({ text }) => text).join('');
    turn.reply(200, completion(turn, content, wanted.finish_reason ?? 'stop'));
  };
}

/** Waits at the gate before the first byte, then runs the behaviour. */
export function gated(gate: Gate, then: ModelBehaviour = goodAnswer): ModelBehaviour {
  return async (turn) => {
    await gate.pass();
    await then(turn);
  };
}

/** The connection is cut before any header. */
export const cutBeforeHeaders: ModelBehaviour = (turn) => turn.cut();

// In the stream

/** Endless silence, with or without headers. */
export function silence(wanted: { headers: boolean }): ModelBehaviour {
  return async (turn) => {
    if (wanted.headers) turn.streamHead();
    await turn.untilClientLeaves();
  };
}

/** Endless comments without content. */
export function onlyComments(every_ms = 50): ModelBehaviour {
  return async (turn) => {
    turn.streamHead();
    for (;;) {
      await turn.comment();
      await turn.pause(every_ms);
    }
  };
}

/** A candidate for each gate: written up to its closing brace, then silence until its gate is open. */
export function candidateByCandidate(gates: Gate[]): ModelBehaviour {
  return async (turn) => {
    turn.streamHead();
    await turn.chunk({ content: `{"${turn.listName}":[` });
    const candidates = turn.candidates(gates.length);
    for (const [n, gate] of gates.entries()) {
      await turn.chunk({ content: `${n === 0 ? '' : ','}${JSON.stringify(candidates[n])}` });
      await gate.pass();
    }
    await turn.chunk({ content: ']}' });
    await endStream(turn, {});
  };
}

/** A good answer with a pause before each chunk. */
export function slowDrip(every_ms: number, content_bytes = 20): ModelBehaviour {
  return answer({ pause_ms: every_ms, content_bytes });
}

/** An error event after this many whole candidates. */
export function errorEvent(
  wanted: {
    after_candidates?: number;
    plus_chars?: number;
    code?: number | string;
    error_type?: string | null;
    choices?: 'with error' | 'empty';
    done?: boolean;
  } = {},
): ModelBehaviour {
  return async (turn) => {
    turn.streamHead();
    const broken: Answer = { whole_candidates: wanted.after_candidates ?? 0, plus_chars: wanted.plus_chars ?? 0 };
    const message = compose(turn, broken);
    if ((wanted.after_candidates ?? 0) > 0 || (wanted.plus_chars ?? 0) > 0) await streamMessage(turn, message, broken);
    else await turn.comment();
    const choices =
      wanted.choices === 'empty'
        ? []
        : [{ index: 0, delta: { content: '' }, finish_reason: 'error', native_finish_reason: 'error' }];
    await turn.errorEvent(errorBody(wanted.code ?? 502, wanted), choices);
    if (wanted.done === true) await turn.event('[DONE]');
    turn.end();
  };
}

/** The connection is cut after this many whole candidates and characters of the next. */
export function cutAfter(whole_candidates: number, plus_chars = 0): ModelBehaviour {
  return answer({ whole_candidates, plus_chars, instead_of_end: 'cut' });
}

/** The connection is cut after this many bytes of a good stream. */
export function cutAfterBytes(bytes: number): ModelBehaviour {
  return async (turn) => {
    turn.streamHead();
    await turn.write(Buffer.from(streamText(turn)).subarray(0, bytes));
    await turn.cut();
  };
}

/** The stream ends without `[DONE]`; with `finish_reason` null a cut looks like an end. */
export function withoutDone(wanted: { finish_reason?: string | null; whole_candidates?: number } = {}): ModelBehaviour {
  return answer({ ...wanted, usage: false, done: false });
}

/** The token limit: whole candidates and the beginning of one more. Some providers name the reason differently. */
export function cutByLength(whole_candidates: number, finish_reason = 'length'): ModelBehaviour {
  return answer({ whole_candidates, plus_chars: 25, finish_reason });
}

/** The content filter stops the answer after this many whole candidates. */
export function contentFilter(whole_candidates = 0): ModelBehaviour {
  return answer({ whole_candidates, plus_chars: whole_candidates === 0 ? 0 : 25, finish_reason: 'content_filter' });
}

/** A refusal, in the member of structured output. */
export function refusal(text = 'I cannot help with that.'): ModelBehaviour {
  return async (turn) => {
    turn.streamHead();
    await turn.chunk({ role: 'assistant', content: '' });
    for (const part of splitContent(text, 10)) await turn.chunk({ refusal: part });
    await endStream(turn, { finish_reason: 'stop' });
  };
}

/** Invented cards: each names a sentence of the text, and its answer has a name and a number that are not in it. */
export function inventsCards(count: number): ModelBehaviour {
  return (turn) => {
    const invent = (candidate: Candidate, n: number) => ({ ...candidate, front: `Who measured it first, and when? (${n + 1})`, back: `Ludmila Vantor, in ${1743 + n}.` });
    return answer({ candidates: turn.candidates(count).map(invent) })(turn);
  };
}

// The format of the message

export const fenced: ModelBehaviour = answer({ around: ['```json\n', '\n```'] });

export const inProse: ModelBehaviour = answer({
  around: ['Sure! Here are your {flashcards} [as requested]:\n\n', '\n\nTell me if you want "more".'],
});

export const bareArray: ModelBehaviour = answer({ bare_array: true });

/** Any message. */
export function content(text: string | string[]): ModelBehaviour {
  return answer({ content: text });
}

/** Any bytes in any chunks. */
export function raw(
  bytes: string | Uint8Array,
  wanted: { chunk_bytes?: number; status?: number; content_type?: string; then?: 'end' | 'cut' | 'silence' } = {},
): ModelBehaviour {
  return async (turn) => {
    turn.head(wanted.status ?? 200, { 'content-type': wanted.content_type ?? 'text/event-stream' });
    const body = Buffer.from(bytes);
    if (wanted.chunk_bytes === undefined) await turn.write(body);
    else await turn.writeInChunks(body, wanted.chunk_bytes);
    if (wanted.then === 'cut') await turn.cut();
    else if (wanted.then === 'silence') await turn.untilClientLeaves();
    else turn.end();
  };
}

/** A body as written, in which a line `: wait N` is a pause of N ms. Without a content type where that is null. */
export function withPauses(body: string, wanted: { status?: number; content_type: string | null }): ModelBehaviour {
  return async (turn) => {
    turn.head(wanted.status ?? 200, wanted.content_type === null ? {} : { 'content-type': wanted.content_type });
    for (const [at, part] of body.split(/^: wait (\d+)\n/m).entries()) {
      if (at % 2 === 0) await turn.write(part);
      else await turn.pause(Number(part));
    }
    turn.end();
  };
}

/** Any message, in chunks of this many characters. */
export function contentByCharacters(text: string, characters: number): ModelBehaviour {
  const all = [...text];
  const count = Math.ceil(all.length / characters);
  return answer({ content: Array.from({ length: count }, (_, n) => all.slice(n * characters, (n + 1) * characters).join('')) });
}

/** A good stream in chunks of this many bytes, which split characters, escapes and line ends. */
export function inChunksOf(chunk_bytes: number, wanted: { line_end?: '\n' | '\r\n' | '\r' } = {}): ModelBehaviour {
  return async (turn) => {
    turn.streamHead();
    const text = streamText(turn).replaceAll('\n', wanted.line_end ?? '\n');
    await turn.writeInChunks(Buffer.from(text), chunk_bytes);
    turn.end();
  };
}

/** A good stream in bursts of varying size and pause. */
export function inBursts(bursts: number, pause_ms: number): ModelBehaviour {
  return async (turn) => {
    turn.streamHead();
    const text = Buffer.from(streamText(turn));
    const size = Math.ceil(text.length / bursts);
    for (let from = 0; from < text.length; from += size) {
      await turn.writeInChunks(text.subarray(from, from + size), 100);
      await turn.pause(pause_ms);
    }
    turn.end();
  };
}

/** A huge answer: valid candidates, one endless string, or one endless SSE line. */
export function huge(kind: 'candidates' | 'string' | 'line', bytes = 5 * 1024 * 1024): ModelBehaviour {
  return async (turn) => {
    turn.streamHead();
    if (kind === 'line') await turn.write('data: ');
    if (kind !== 'line') await turn.chunk({ content: `{"${turn.listName}":[` });
    if (kind === 'string') await turn.chunk({ content: '{"front":"' });
    for (let sent = 0, n = 0; sent < bytes; n += 1) {
      const part = kind === 'candidates' ? `${JSON.stringify(numberedCandidate(n))},` : 'x'.repeat(1000);
      if (kind === 'line') await turn.write(part);
      else await turn.chunk({ content: part });
      sent += part.length;
    }
    await endStream(turn, {});
  };
}

function numberedCandidate(n: number): Candidate {
  return { front: `Question number ${n}?`, back: `The answer ${n}. ${'Text. '.repeat(60)}`.trim(), prompt: `Tests ${n}.` };
}

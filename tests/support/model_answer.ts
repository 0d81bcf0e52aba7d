// Composes an answer of the model server: candidates as JSON, split into chunks, streamed or whole, with a good or bad end.
// The named failures of model_behaviour.ts use this.

import type { Candidate } from './candidate_maker.ts';
import type { Gate } from './gate.ts';
import type { ModelTurn } from './model_turn.ts';

/** Writes one answer. */
export type ModelBehaviour = (turn: ModelTurn) => Promise<void> | void;

export type Answer = {
  /** The candidates, or how many to make from the text; default: as many as the request allows. */
  candidates?: Partial<Candidate>[] | number;
  /** The message in place of candidates; a list is sent chunk by chunk. */
  content?: string | string[];
  /** The message breaks off after this many whole candidates, */
  whole_candidates?: number;
  /** and this many characters of the next one. */
  plus_chars?: number;
  /** Comments before the first chunk. Default 3. */
  comments?: number;
  /** Size of a chunk of content in UTF-8 bytes; never splits a character. Default 20, as seen from providers. */
  content_bytes?: number;
  /** Pause between two chunks. Default none. */
  pause_ms?: number;
  /** Waits at the gate after this many whole candidates; 0 waits before the first chunk. */
  hold?: { gate: Gate; after_candidates: number };
  /** The end after the message. Default 'stop'; null sends no finish_reason. */
  finish_reason?: string | null;
  /** Default true. */
  usage?: boolean;
  /** US dollars; default: from the tokens. Null: the usage has no cost. */
  cost?: number | null;
  /** `data: [DONE]`. Default true. */
  done?: boolean;
  /** In place of finish_reason, usage and [DONE]: cut the connection, go silent, or send comments endlessly. */
  instead_of_end?: 'cut' | 'silence' | 'comments';
  /** The list stands alone, without the object around it. */
  bare_array?: boolean;
  /** Put around the JSON: code fences, prose. */
  around?: [before: string, after: string];
};

/** A good answer, or one with the faults of `wanted`; streamed if the request is for a stream. */
export function answer(wanted: Answer = {}): ModelBehaviour {
  return async (turn) => {
    const message = compose(turn, wanted);
    if (!turn.wantsStream) {
      turn.reply(200, completion(turn, message.chunks.map(({ text }) => text).join(''), wanted.finish_reason ?? 'stop'));
      return;
    }
    turn.streamHead();
    await streamMessage(turn, message, wanted);
    await endStream(turn, wanted);
  };
}

/** The default. */
export const goodAnswer: ModelBehaviour = answer();

/** The chunks of a message; `candidates` is the number of whole ones after the chunk. */
type Message = { chunks: { text: string; candidates: number }[] };

export function compose(turn: ModelTurn, wanted: Answer): Message {
  if (Array.isArray(wanted.content)) return { chunks: wanted.content.map((text) => ({ text, candidates: 0 })) };
  const { text, ends } = wanted.content === undefined ? candidatesText(turn, wanted) : { text: wanted.content, ends: [] };
  const cutAt = breakOff(text, ends, wanted);
  const composed: Message = { chunks: [] };
  let at = 0;
  for (const part of splitContent(text.slice(0, cutAt), wanted.content_bytes ?? 20)) {
    at += part.length;
    composed.chunks.push({ text: part, candidates: ends.filter((end) => end <= at).length });
  }
  return composed;
}

/** The JSON of the candidates, and the position after each closing brace. */
function candidatesText(turn: ModelTurn, wanted: Answer): { text: string; ends: number[] } {
  const candidates = Array.isArray(wanted.candidates) ? wanted.candidates : turn.candidates(wanted.candidates);
  const [before, after] = wanted.around ?? ['', ''];
  let text = before + (wanted.bare_array === true ? '[' : `{"${turn.listName}":[`);
  const ends: number[] = [];
  for (const [i, candidate] of candidates.entries()) {
    text += (i === 0 ? '' : ',') + JSON.stringify(candidate);
    ends.push(text.length);
  }
  text += (wanted.bare_array === true ? ']' : ']}') + after;
  return { text, ends };
}

function breakOff(text: string, ends: number[], wanted: Answer): number {
  if (wanted.whole_candidates === undefined) return text.length;
  const end = wanted.whole_candidates === 0 ? text.indexOf('[') + 1 : ends[wanted.whole_candidates - 1];
  if (end === undefined) throw new Error(`the text yields ${ends.length} candidates, not ${wanted.whole_candidates}`);
  return end + (wanted.plus_chars ?? 0);
}

export async function streamMessage(turn: ModelTurn, message: Message, wanted: Answer): Promise<void> {
  for (let i = 0; i < (wanted.comments ?? 3); i += 1) await turn.comment();
  await turn.chunk({ role: 'assistant', content: '' });
  let held = wanted.hold === undefined;
  const holdAfter = async (candidates: number) => {
    if (held || wanted.hold === undefined || candidates < wanted.hold.after_candidates) return;
    held = true;
    await wanted.hold.gate.pass();
  };
  await holdAfter(0);
  for (const { text, candidates } of message.chunks) {
    await turn.chunk({ content: text });
    await holdAfter(candidates);
    if (wanted.pause_ms !== undefined) await turn.pause(wanted.pause_ms);
  }
}

export async function endStream(turn: ModelTurn, wanted: Answer): Promise<void> {
  if (wanted.instead_of_end === 'cut') return turn.cut();
  if (wanted.instead_of_end === 'silence') return turn.untilClientLeaves();
  while (wanted.instead_of_end === 'comments') {
    await turn.comment();
    await turn.pause(50);
  }
  const reason = wanted.finish_reason === undefined ? 'stop' : wanted.finish_reason;
  if (reason !== null) await turn.chunk({ content: '' }, reason);
  if (wanted.usage !== false) await turn.usageChunk(usageOf(turn, wanted.cost));
  if (wanted.done !== false) await turn.event('[DONE]');
  turn.end();
}

/** A good stream as one text. */
export function streamText(turn: ModelTurn): string {
  const chunk = (delta: object, finish_reason: string | null = null) =>
    `data: ${JSON.stringify({ id: turn.id, model: turn.model, choices: [{ index: 0, delta, finish_reason }] })}\n\n`;
  return [
    ': OPENROUTER PROCESSING\n\n',
    ...compose(turn, {}).chunks.map(({ text }) => chunk({ content: text })),
    chunk({ content: '' }, 'stop'),
    `data: ${JSON.stringify({ id: turn.id, model: turn.model, choices: [], usage: usageOf(turn) })}\n\n`,
    'data: [DONE]\n\n',
  ].join('');
}

export function completion(turn: ModelTurn, message: string, finish_reason: string) {
  return {
    id: turn.id,
    provider: 'Stand-in',
    model: turn.model,
    object: 'chat.completion',
    created: Math.floor(Date.now() / 1000),
    choices: [
      {
        index: 0,
        message: { role: 'assistant', content: message, refusal: null },
        finish_reason,
        native_finish_reason: finish_reason,
      },
    ],
    usage: usageOf(turn),
  };
}

/** Plausible figures that depend on the request alone. */
function usageOf(turn: ModelTurn, cost?: number | null) {
  const prompt_tokens = Math.ceil(turn.request.raw.length / 4);
  const completion_tokens = 400;
  return {
    prompt_tokens,
    completion_tokens,
    total_tokens: prompt_tokens + completion_tokens,
    ...(cost === null ? {} : { cost: cost ?? (prompt_tokens * 15 + completion_tokens * 60) / 1e8 }),
    prompt_tokens_details: { cached_tokens: 0 },
    completion_tokens_details: { reasoning_tokens: 0 },
  };
}

const ERROR_TYPES: Record<number, string> = {
  400: 'invalid_request',
  401: 'authentication',
  402: 'payment_required',
  403: 'permission_denied',
  404: 'not_found',
  408: 'timeout',
  413: 'max_tokens_exceeded',
  422: 'invalid_request',
  429: 'rate_limit_exceeded',
  500: 'server',
  502: 'provider_unavailable',
  503: 'provider_overloaded',
  504: 'timeout',
};

export function errorBody(code: number | string, wanted: { error_type?: string | null; message?: string }): object {
  const error_type = wanted.error_type === undefined ? ERROR_TYPES[Number(code)] : wanted.error_type;
  const metadata = error_type == null ? {} : { metadata: { error_type, provider_name: 'Stand-in' } };
  return { code, message: wanted.message ?? `stand-in failure ${code}`, ...metadata };
}

/** Splits a text into parts of about `bytes` UTF-8 bytes, never inside a character. */
export function splitContent(text: string, bytes: number): string[] {
  const cut: string[] = [];
  let part = '';
  let size = 0;
  for (const char of text) {
    part += char;
    size += Buffer.byteLength(char);
    if (size < bytes) continue;
    cut.push(part);
    part = '';
    size = 0;
  }
  if (part !== '') cut.push(part);
  return cut;
}

/** Reads the answer of the model: bytes from the connection, content from events, candidates from content. */
import { clean, codePoints } from './new_session.js';

const BUFFER_BYTES = 65_536;
/** Output that arrived this long ago is stored, so that a crash does not lose it. */
const LOOK_MS = 250;
const LENGTHS_MAX = { front: 200, back: 500, prompt: 500 };

/** All zero; a buffer returns to them after a regular end. */
const buffers = [];

/**
 * Yields the bytes of a body by one native read that fills a buffer. workerd writes into the buffer while the read is pending
 * (compatibility flag `streams_byob_reader_does_not_detach_buffer`), so that the bytes can be seen after each `LOOK_MS`
 * (`isPending`), and are not lost when the connection breaks: then they are yielded before the error is thrown.
 */
export async function* batches(body) {
  const reader = body.getReader({ mode: 'byob' });
  for (;;) {
    const buffer = buffers.pop() ?? new Uint8Array(BUFFER_BYTES);
    const read = reader.read(buffer, { min: BUFFER_BYTES }).then(({ value }) => ({ filled: value?.length ?? 0 }), (error) => ({ error }));
    for (let [outcome, taken] = [undefined, 0]; outcome === undefined; ) {
      outcome = await within(LOOK_MS, read);
      const filled = outcome?.filled ?? filledBytes(buffer, taken);
      yield { bytes: buffer.slice(taken, filled), isPending: outcome === undefined };
      taken = filled;
      if (outcome?.error !== undefined) throw outcome.error;
    }
    const { filled } = await read;
    buffer.fill(0, 0, filled);
    buffers.push(buffer);
    if (filled < BUFFER_BYTES) return;
  }
}

/** The number of bytes up to the last one that is not zero: JSON contains no zero byte. */
function filledBytes(buffer, taken) {
  let end = buffer.length;
  while (end > taken && buffer[end - 1] === 0) end -= 1;
  return end;
}

/** Yields the bytes of a body as they arrive. */
export async function* chunks(body) {
  for await (const bytes of body) yield { bytes, isPending: true };
}

/** Resolves like the promise, or to undefined after the time. */
async function within(ms, promise) {
  const { promise: late, resolve } = Promise.withResolvers();
  const timer = setTimeout(resolve, ms);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The candidates of a stream of completion chunks. */
export class AnswerReader {
  usage = {};
  isComplete = false;
  /** Whether a candidate was dropped. */
  hasGap = false;
  #decoder = new TextDecoder();
  #line = '';
  #content = '';
  /** The next character to scan, and the begin of the open candidate or -1. */
  #at = 0;
  #open = -1;
  #depth = 0;
  #inString = false;

  /** Returns the candidates that end in these bytes. */
  push(bytes) {
    const lines = (this.#line + this.#decoder.decode(bytes, { stream: true })).split('\n');
    this.#line = lines.pop();
    for (const line of lines) this.#readLine(line);
    return this.#scan();
  }

  #readLine(line) {
    if (!line.startsWith('data: ')) return;
    if (line.startsWith('data: [DONE]')) return void (this.isComplete = true);
    const { choices, usage, error } = JSON.parse(line.slice('data: '.length));
    if (error !== undefined) throw new Error(`the model reports ${error.code}`);
    if (usage !== undefined) this.usage = usage;
    this.#content += choices[0]?.delta.content ?? '';
  }

  /** A candidate is an object within the list of the root: at depth 2. */
  #scan() {
    const found = [];
    for (; this.#at < this.#content.length; this.#at += 1) {
      const char = this.#content[this.#at];
      if (this.#inString) {
        if (char === '\\') this.#at += 1;
        else if (char === '"') this.#inString = false;
      } else if (char === '"') {
        this.#inString = true;
      } else if (char === '{') {
        this.#depth += 1;
        if (this.#depth === 2) this.#open = this.#at;
      } else if (char === '}') {
        this.#depth -= 1;
        if (this.#depth !== 1) continue;
        const candidate = validCandidate(this.#content.slice(this.#open, this.#at + 1));
        if (candidate === undefined) this.hasGap = true;
        else found.push(candidate);
        this.#open = -1;
      }
    }
    this.#dropScanned();
    return found;
  }

  #dropScanned() {
    const dropped = this.#open === -1 ? Math.min(this.#at, this.#content.length) : this.#open;
    this.#content = this.#content.slice(dropped);
    this.#at -= dropped;
    if (this.#open !== -1) this.#open = 0;
  }
}

/** Returns the candidate with an id, or undefined where a field is outside its limits. */
function validCandidate(text) {
  const read = JSON.parse(text);
  const candidate = { id: crypto.randomUUID() };
  for (const [field, max] of Object.entries(LENGTHS_MAX)) {
    if (typeof read[field] !== 'string') return undefined;
    const value = clean(read[field]);
    const length = codePoints(value);
    if (length < 1 || length > max) return undefined;
    candidate[field] = value;
  }
  return candidate;
}

// An answer of the model server as written by a behaviour: status and headers, then bytes, comments, events.

import type { ServerResponse } from 'node:http';
import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises';
import { type Candidate, makeCandidates } from './candidate_maker.ts';
import { type ModelRequest, numberedSentences, textToLearn, wantedList } from './model_request.ts';

export const MODEL_STAND_IN = 'ai-sessions local model';

/** The client closed the connection; ends a behaviour. */
export class ClientLeft extends Error {}

export class ModelTurn {
  readonly request: ModelRequest;
  /** Set when the server itself cuts the connection. */
  wasCut = false;
  #response: ServerResponse;
  readonly id = `gen-${Date.now()}-${crypto.randomUUID().slice(0, 8)}`;

  constructor(request: ModelRequest, response: ServerResponse) {
    this.request = request;
    this.#response = response;
  }

  get model(): string {
    return this.request.body?.model ?? this.request.body?.models?.[0] ?? 'stand-in/model';
  }

  get wantsStream(): boolean {
    return this.request.body?.stream === true;
  }

  /** The name of the list in the answer's root. */
  get listName(): string {
    return wantedList(this.request.body).name;
  }

  /** Candidates from the request's text, at most `max`; with the numbers of their sentences where the text has numbers. */
  candidates(max?: number): Candidate[] {
    const candidates = makeCandidates(textToLearn(this.request.body), max ?? wantedList(this.request.body).max);
    const sentences = numberedSentences(this.request.body).map(({ number, text }) => ({ number, text: text.replace(/\s+/gu, ' ').trim() }));
    if (sentences.length === 0) return candidates;
    // The back is a sentence of the text; the service may split it further.
    const isIn = (back: string, text: string) => text.length > 1 && (back.includes(text) || text.includes(back));
    return candidates.map((candidate) => ({
      source: sentences.filter(({ text }) => isIn(candidate.back, text)).map(({ number }) => number),
      ...candidate,
    }));
  }

  /** Sends status and headers at once, before any body. */
  head(status: number, headers: Record<string, string> = {}): void {
    this.#response.writeHead(status, { 'x-generation-id': this.id, 'x-stand-in': MODEL_STAND_IN, ...headers });
    this.#response.flushHeaders();
  }

  streamHead(): void {
    this.head(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
  }

  /** Writes with back pressure. */
  async write(bytes: string | Uint8Array): Promise<void> {
    if (this.#response.destroyed) throw new ClientLeft();
    if (this.#response.write(bytes)) return;
    const response = this.#response;
    await new Promise<void>((resolve, reject) => {
      const drained = () => {
        response.off('close', closed);
        resolve();
      };
      const closed = () => {
        response.off('drain', drained);
        reject(new ClientLeft());
      };
      response.once('drain', drained);
      response.once('close', closed);
    });
  }

  /** Writes in chunks of `chunk_bytes`, each an HTTP chunk and, as far as TCP allows, a packet. */
  async writeInChunks(bytes: Uint8Array, chunk_bytes: number): Promise<void> {
    for (let at = 0; at < bytes.length; at += chunk_bytes) {
      await this.write(bytes.subarray(at, at + chunk_bytes));
      await nextTurn();
    }
  }

  comment(): Promise<void> {
    return this.write(': OPENROUTER PROCESSING\n\n');
  }

  event(data: object | string): Promise<void> {
    return this.write(`data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`);
  }

  /** A `chat.completion.chunk` with one choice. */
  chunk(delta: object, finish_reason: string | null = null, more: object = {}): Promise<void> {
    const choices = [{ index: 0, delta, finish_reason, native_finish_reason: finish_reason, ...more }];
    return this.event({ ...this.#chunkHead(), choices });
  }

  /** The last chunk before `[DONE]`. */
  usageChunk(usage: object): Promise<void> {
    return this.event({ ...this.#chunkHead(), choices: [], usage });
  }

  /** An error event in mid-stream; `choices` as providers send them. */
  errorEvent(error: object, choices: object[]): Promise<void> {
    return this.event({ ...this.#chunkHead(), error, choices });
  }

  #chunkHead(): object {
    return {
      id: this.id,
      provider: 'Stand-in',
      model: this.model,
      object: 'chat.completion.chunk',
      created: Math.floor(Date.now() / 1000),
    };
  }

  /** A whole answer. */
  reply(status: number, body: object | string, headers: Record<string, string> = {}): void {
    this.head(status, { 'content-type': 'application/json', ...headers });
    this.end(typeof body === 'string' ? body : JSON.stringify(body));
  }

  end(last: string | Uint8Array = ''): void {
    this.#response.end(last);
  }

  /** Cuts the connection after all written bytes were sent. */
  async cut(): Promise<void> {
    await nextTurn();
    this.wasCut = true;
    this.#response.socket?.destroySoon();
  }

  /** Resolves when the client has gone or the server is closed. */
  async untilClientLeaves(): Promise<void> {
    if (this.#response.destroyed) return;
    await new Promise<void>((resolve) => this.#response.once('close', () => resolve()));
  }

  /** Waits; throws if the client leaves meanwhile. */
  async pause(ms: number): Promise<void> {
    if (this.#response.destroyed) throw new ClientLeft();
    const left = new AbortController();
    const abort = () => left.abort();
    this.#response.once('close', abort);
    try {
      await pause(ms, undefined, { signal: left.signal });
    } catch {
      throw new ClientLeft();
    } finally {
      this.#response.off('close', abort);
    }
  }
}

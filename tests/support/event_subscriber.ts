// A subscriber of an event stream: the events so far, the next one, how the stream ended. It reads continuously, like a page.

import { type Comment, EventStreamReader, isComment, isEvent, type StreamEvent, type StreamItem } from './event_stream.ts';
import { within } from './within.ts';

export class EventSubscriber {
  readonly headers: Headers;
  /** All items, comments included. */
  readonly items: StreamItem[] = [];
  /** How the connection ended: whole, or cut. */
  readonly end: Promise<'whole' | 'broken'>;
  #chunks: Uint8Array[] = [];
  #reader = new EventStreamReader();
  #taken = 0;
  #ended: 'whole' | 'broken' | undefined;
  #update = Promise.withResolvers<void>();
  #leaving: AbortController;

  constructor(response: Response, leaving: AbortController) {
    this.headers = response.headers;
    this.#leaving = leaving;
    this.end = this.#read(response);
  }

  async #read(response: Response): Promise<'whole' | 'broken'> {
    try {
      for await (const chunk of response.body ?? []) {
        this.#chunks.push(chunk);
        this.items.push(...this.#reader.push(chunk));
        this.#notify();
      }
      this.#ended = 'whole';
    } catch {
      this.#ended = 'broken';
    }
    this.#notify();
    return this.#ended;
  }

  #notify(): void {
    this.#update.resolve();
    this.#update = Promise.withResolvers();
  }

  async #next<T extends StreamItem>(isIt: (item: StreamItem) => item is T): Promise<T> {
    for (;;) {
      const one = this.items[this.#taken];
      if (one !== undefined) {
        this.#taken += 1;
        if (isIt(one)) return one;
      } else if (this.#ended === undefined) await this.#update.promise;
      else throw new Error(`the stream has ended, ${this.#ended}; its last item is ${JSON.stringify(this.items.at(-1))}`);
    }
  }

  /** The next event, as soon as it arrives. */
  next(deadline_ms?: number): Promise<StreamEvent> {
    return within(this.#next(isEvent), 'an event', deadline_ms);
  }

  /** The next `count` events. */
  async some(count: number, deadline_ms?: number): Promise<StreamEvent[]> {
    const events: StreamEvent[] = [];
    while (events.length < count) events.push(await this.next(deadline_ms));
    return events;
  }

  /** The next comment; events before it are skipped. */
  nextComment(deadline_ms?: number): Promise<Comment> {
    return within(this.#next(isComment), 'a comment', deadline_ms);
  }

  /** All events, once the stream has ended whole. */
  async whole(deadline_ms?: number): Promise<StreamEvent[]> {
    const end = await within(this.end, 'the end of the stream', deadline_ms);
    if (end === 'broken') throw new Error(`the stream broke off after ${this.#reader.lastEventId || 'nothing'}`);
    return this.events;
  }

  /** All events so far. */
  get events(): StreamEvent[] {
    return this.items.filter(isEvent);
  }

  /** The `Last-Event-ID` for a reconnection. */
  get lastEventId(): string {
    return this.#reader.lastEventId;
  }

  /** All bytes so far. */
  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  /** Cuts the connection. */
  leave(): void {
    this.#leaving.abort();
  }
}

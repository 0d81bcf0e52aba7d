// Somebody who listens to a stream of events: what was heard, what comes next, how it ended. It reads all the time, as a
// page does.

import { type Comment, EventStreamReader, isComment, isEvent, type StreamEvent, type StreamItem } from './event_stream.ts';
import { within } from './within.ts';

export class EventSubscriber {
  readonly headers: Headers;
  /** Everything, comments included. */
  readonly items: StreamItem[] = [];
  /** How it ended: as it should, or as one that broke off. */
  readonly end: Promise<'whole' | 'broken'>;
  #pieces: Uint8Array[] = [];
  #reader = new EventStreamReader();
  #taken = 0;
  #ended: 'whole' | 'broken' | undefined;
  #update = Promise.withResolvers<void>();
  #leaving: AbortController;

  constructor(response: Response, leaving: AbortController) {
    this.headers = response.headers;
    this.#leaving = leaving;
    this.end = this.#listen(response);
  }

  async #listen(response: Response): Promise<'whole' | 'broken'> {
    try {
      for await (const piece of response.body ?? []) {
        this.#pieces.push(piece);
        this.items.push(...this.#reader.push(piece));
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
      else throw new Error(`nothing more comes, the stream is ${this.#ended}, the last of it ${JSON.stringify(this.items.at(-1))}`);
    }
  }

  /** The next event, as soon as it is there. */
  next(deadline_ms?: number): Promise<StreamEvent> {
    return within(this.#next(isEvent), 'an event', deadline_ms);
  }

  /** The next so many. */
  async some(count: number, deadline_ms?: number): Promise<StreamEvent[]> {
    const events: StreamEvent[] = [];
    while (events.length < count) events.push(await this.next(deadline_ms));
    return events;
  }

  /** The next comment; events before it are passed over. */
  nextComment(deadline_ms?: number): Promise<Comment> {
    return within(this.#next(isComment), 'a comment', deadline_ms);
  }

  /** All events, when the stream has ended as it should. */
  async whole(deadline_ms?: number): Promise<StreamEvent[]> {
    const end = await within(this.end, 'the end of the stream', deadline_ms);
    if (end === 'broken') throw new Error(`the stream broke off after ${this.#reader.lastEventId || 'nothing'}`);
    return this.events;
  }

  /** All events so far. */
  get events(): StreamEvent[] {
    return this.items.filter(isEvent);
  }

  /** What a reader that comes back sends. */
  get lastEventId(): string {
    return this.#reader.lastEventId;
  }

  /** All bytes so far. */
  get bytes(): Buffer {
    return Buffer.concat(this.#pieces);
  }

  /** Cuts the connection. */
  leave(): void {
    this.#leaving.abort();
  }
}

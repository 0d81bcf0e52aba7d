// Reads Server-Sent Events (WHATWG HTML, section 9.2) from bytes in any chunks. Comments are returned too: tests check the
// heartbeat.

import { createParser } from 'eventsource-parser';

/** A dispatched event; `data` is its parsed JSON. */
export type StreamEvent = { id: string; event: string; data: any };

export type Comment = { comment: string };

export type StreamItem = StreamEvent | Comment;

export const isEvent = (item: StreamItem): item is StreamEvent => 'event' in item;
export const isComment = (item: StreamItem): item is Comment => 'comment' in item;
/** Whether the event ends a list. */
export const isEnd = (event: StreamEvent | undefined) => event?.event === 'done' || event?.event === 'error';

export class EventStreamReader {
  /** The `Last-Event-ID` of a reconnecting client; empty before the first event. */
  lastEventId = '';
  #decoder = new TextDecoder();
  #items: StreamItem[] = [];
  #parser = createParser({
    onId: (id) => (this.lastEventId = id),
    onEvent: ({ event = 'message', data }) => this.#items.push({ id: this.lastEventId, event, data: JSON.parse(data) }),
    onComment: (comment) => this.#items.push({ comment }),
  });

  /** Takes the next bytes; returns the items that are complete now. */
  push(bytes: Uint8Array): StreamItem[] {
    this.#parser.feed(this.#decoder.decode(bytes, { stream: true }));
    return this.#items.splice(0);
  }
}

/** Parses the items of a whole stream; an event that was cut is not among them. */
export const parseStream = (bytes: string | Uint8Array): StreamItem[] =>
  new EventStreamReader().push(typeof bytes === 'string' ? Buffer.from(bytes) : bytes);

/** Parses the events of a whole stream. */
export const parseEvents = (bytes: string | Uint8Array): StreamEvent[] => parseStream(bytes).filter(isEvent);

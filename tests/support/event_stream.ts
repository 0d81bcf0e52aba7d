// Reading Server-Sent Events (WHATWG HTML, section 9.2), as a page does it: bytes in any pieces, events out. Comments are
// told too, because a test wants to hear them.

/** An event, as it was dispatched. */
export type StreamEvent = {
  id: string;
  event: string;
  /** The document in it. */
  data: any;
};

export type Comment = { comment: string };

/** What a stream says. */
export type StreamItem = StreamEvent | Comment;

export const isEvent = (items: StreamItem): items is StreamEvent => 'event' in items;
/** Whether a list ends with it. */
export const isEnd = (event: StreamEvent | undefined) => event?.event === 'done' || event?.event === 'error';
export const isComment = (items: StreamItem): items is Comment => 'comment' in items;

export class EventStreamReader {
  /** What a reader that comes back sends as `Last-Event-ID`; empty before the first event. */
  lastEventId = '';
  #decoder = new TextDecoder();
  #rest = '';
  #id = '';
  #event = '';
  #data: string[] = [];

  /** Takes the next bytes; answers what is whole now. */
  push(bytes: Uint8Array): StreamItem[] {
    this.#rest += this.#decoder.decode(bytes, { stream: true });
    const items: StreamItem[] = [];
    for (;;) {
      // A CR at the very end may be the first half of a CRLF.
      const line = /^([^\r\n]*)(\r\n|\n|\r(?=[^]))/.exec(this.#rest);
      if (line === null) return items;
      this.#rest = this.#rest.slice(line[0].length);
      items.push(...this.#line(line[1] ?? ''));
    }
  }

  #line(line: string): StreamItem[] {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === '') return [{ comment: value }];
    if (field === 'id') this.#id = value;
    if (field === 'event') this.#event = value;
    if (field === 'data') this.#data.push(value);
    return [];
  }

  #dispatch(): StreamItem[] {
    this.lastEventId = this.#id;
    const [event, data] = [this.#event || 'message', this.#data];
    this.#event = '';
    this.#data = [];
    // Without data there is no event: the end of a comment.
    return data.length === 0 ? [] : [{ id: this.#id, event, data: JSON.parse(data.join('\n')) }];
  }
}

/** All of it at once. */
export const parseEvents = (bytes: string | Uint8Array): StreamItem[] =>
  new EventStreamReader().push(typeof bytes === 'string' ? Buffer.from(bytes) : bytes);

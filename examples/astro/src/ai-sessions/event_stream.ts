/**
 * Reads Server-Sent Events (WHATWG HTML, 9.2.6) from a response's body in any chunks. Not `EventSource`, which can send neither
 * a token nor a body.
 */
import { ConnectionError, isAbort } from './errors.ts';

export interface StreamEvent {
  type: string;
  data: string;
  /** The last id so far, as in the standard; empty before the first. */
  id: string;
}

/** A candidate has some 1200 characters; an event a hundred times as long is not of this service. */
const EVENT_CHARS_MAX = 131_072;

export class EventReader {
  #rest = '';
  #endedInCr = false;
  #type = '';
  #data: string[] = [];
  #id = '';
  #chars = 0;

  /** Takes the next text; returns the events that are complete now. */
  push(text: string): StreamEvent[] {
    const events: StreamEvent[] = [];
    for (const line of this.#lines(text)) {
      const event = this.#line(line);
      if (event !== undefined) events.push(event);
    }
    if (this.#chars + this.#rest.length > EVENT_CHARS_MAX) throw new ConnectionError('an event of the stream is too long');
    return events;
  }

  /** A line ends in LF, CR or CRLF; a CRLF may come in two chunks. */
  #lines(text: string): string[] {
    if (text === '') return [];
    const rest = this.#endedInCr && text.startsWith('\n') ? text.slice(1) : text;
    this.#endedInCr = rest.endsWith('\r');
    const lines = (this.#rest + rest).split(/\r\n|\r|\n/);
    this.#rest = lines.pop() ?? '';
    return lines;
  }

  #line(line: string): StreamEvent | undefined {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    const field = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') this.#type = value;
    else if (field === 'data') this.#data.push(value);
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    this.#chars += line.length;
    return undefined;
  }

  #dispatch(): StreamEvent | undefined {
    const event = { type: this.#type || 'message', data: this.#data.join('\n'), id: this.#id };
    const hasData = this.#data.length > 0;
    this.#type = '';
    this.#data = [];
    this.#chars = 0;
    return hasData ? event : undefined;
  }
}

/** The events of a body; `alive` is called for every chunk, comments included. */
export async function* eventsIn(body: ReadableStream<Uint8Array>, alive: () => void): AsyncGenerator<StreamEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const events = new EventReader();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((cause: unknown) => {
        throw isAbort(cause) ? cause : new ConnectionError('the stream broke', { cause });
      });
      if (done) return;
      alive();
      yield* events.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    // A reader that stops closes the connection. The generation continues.
    reader.cancel().catch(() => {});
  }
}

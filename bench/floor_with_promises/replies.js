/** The replies of the user object: a whole session, or its events. */
import { Problem } from './problem.js';

const encoder = new TextEncoder();

/** Waits for the end of a generation; the record of a key has its reply already. */
export async function readWhole(source, fields) {
  const { failure, reply, timing } = source.outcome === undefined ? source : await source.outcome;
  if (failure !== undefined) throw new Problem('model_failed', failure);
  return new Response(reply, { status: 201, headers: { 'content-type': 'application/json', 'cache-control': 'no-store', ...(timing && { 'server-timing': timing }), ...fields } });
}

/** Sends the events so far, and follows a generation until its end. */
export function streamOf(source, fields) {
  const { readable, writable } = new IdentityTransformStream();
  const events = new EventWriter(writable.getWriter());
  events.send('session', { id: source.id });
  if (source.outcome === undefined) replay(events, JSON.parse(source.reply));
  else source.subscribe(events);
  return new Response(readable, { headers: { 'content-type': 'text/event-stream', 'cache-control': 'no-store, no-transform', ...fields } });
}

function replay(events, { id, partial, candidates }) {
  events.sendCandidates(candidates);
  events.end('done', { id, count: candidates.length, partial });
}

/** Numbers and writes the events of one stream. A client that has left is not an error. */
class EventWriter {
  #events = 0;
  #candidates = 0;

  constructor(writer) {
    this.writer = writer;
  }

  send(event, data) {
    this.#write(this.#format(event, data));
  }

  /** Sends these candidates in one write. */
  sendCandidates(candidates) {
    const events = candidates.map((candidate) => this.#format('candidate', { index: this.#candidates++, ...candidate }));
    if (events.length > 0) this.#write(events.join(''));
  }

  end(event, data) {
    this.send(event, data);
    this.writer.close().catch(() => {});
  }

  #format(event, data) {
    return `id: 1.${this.#events++}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
  }

  #write(text) {
    this.writer.write(encoder.encode(text)).catch(() => {});
  }
}

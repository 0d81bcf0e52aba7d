/** Sends one request, timed with the clock of the upstream's timestamps. */
import { Agent, request } from 'node:http';
import { createParser } from 'eventsource-parser';

export type HttpRequest = { method: 'GET' | 'POST'; path: string; headers: Record<string, string>; body?: string };

export type Answer = {
  status: number;
  contentType: string;
  body: string;
  /** From the first byte sent to the last byte received. */
  ms: number;
  /** When each chunk of the body arrived, and the length of the body then. */
  chunks: { at_ms: number; chars: number }[];
};

/** Milliseconds of CLOCK_MONOTONIC, which all processes of a machine share. */
export const monotonicMs = () => Number(process.hrtime.bigint()) / 1e6;

/** Sends a request; without `connections` on a new connection. */
export function send(url: string, { method, path, headers, body }: HttpRequest, connections = new Agent()): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const start_ms = monotonicMs();
  const length = body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) };
  const sent = request(url + path, { method, agent: connections, headers: { ...headers, ...length } }, (response) => {
    const chunks: Answer['chunks'] = [];
    let text = '';
    response.setEncoding('utf8');
    response.on('data', (chunk: string) => {
      text += chunk;
      chunks.push({ at_ms: monotonicMs(), chars: text.length });
    });
    response.on('error', reject);
    response.on('end', () => {
      const { statusCode: status = 0, headers: received } = response;
      resolve({ status, contentType: received['content-type'] ?? '', body: text, ms: monotonicMs() - start_ms, chunks });
    });
  });
  sent.on('error', reject);
  sent.end(body);
  return promise;
}

/** An event of a stream, and when the chunk that completed it arrived. */
export type StreamEvent = { event: string; data: unknown; at_ms: number };

export function eventsOf({ body, chunks }: Answer): StreamEvent[] {
  const events: StreamEvent[] = [];
  let [start, arrived_ms] = [0, 0];
  const parser = createParser({ onEvent: ({ event = 'message', data }) => events.push({ event, data: JSON.parse(data), at_ms: arrived_ms }) });
  for (const { at_ms, chars } of chunks) {
    arrived_ms = at_ms;
    parser.feed(body.slice(start, chars));
    start = chars;
  }
  return events;
}

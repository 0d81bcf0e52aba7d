/** One request, timed on the clock that the upstream stamps with. */
import { Agent, request } from 'node:http';

export type HttpRequest = { method: 'GET' | 'POST'; path: string; headers: Record<string, string>; body?: string };

export type Answer = {
  status: number;
  contentType: string;
  body: string;
  /** From the first byte sent to the last byte received. */
  ms: number;
  /** When each piece of the body came, and how long the body was then. */
  pieces: { at_ms: number; chars: number }[];
};

/** Milliseconds of CLOCK_MONOTONIC, which all processes of a machine share. */
export const monotonicMs = () => Number(process.hrtime.bigint()) / 1e6;

/** Without `connections` it has one of its own. */
export function send(url: string, { method, path, headers, body }: HttpRequest, connections = new Agent()): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const start_ms = monotonicMs();
  const length = body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) };
  const sent = request(url + path, { method, agent: connections, headers: { ...headers, ...length } }, (response) => {
    const pieces: Answer['pieces'] = [];
    let text = '';
    response.setEncoding('utf8');
    response.on('data', (piece: string) => {
      text += piece;
      pieces.push({ at_ms: monotonicMs(), chars: text.length });
    });
    response.on('error', reject);
    response.on('end', () => {
      const { statusCode: status = 0, headers: received } = response;
      resolve({ status, contentType: received['content-type'] ?? '', body: text, ms: monotonicMs() - start_ms, pieces });
    });
  });
  sent.on('error', reject);
  sent.end(body);
  return promise;
}

/** An event of a stream, and when the piece came that completed it. */
export type StreamEvent = { event: string; data: unknown; at_ms: number };

export function eventsOf({ body, pieces }: Answer): StreamEvent[] {
  const events: StreamEvent[] = [];
  let end = 0;
  for (const block of body.split('\n\n')) {
    end += block.length + 2;
    const fields = new Map(block.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trimStart()]));
    const [event, data] = [fields.get('event'), fields.get('data')];
    if (event === undefined || data === undefined) continue; // a comment
    const completed = pieces.find(({ chars }) => chars >= end);
    events.push({ event, data: JSON.parse(data), at_ms: completed?.at_ms ?? Number.NaN });
  }
  return events;
}

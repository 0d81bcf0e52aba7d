// A scripted service: each request of the client meets the next response. Pauses end at once and are recorded.

import assert from 'node:assert/strict';
import type { ConnectOptions } from '../../examples/astro/src/ai-sessions/client.ts';
import type { Problem, ProblemCode } from '../../examples/astro/src/ai-sessions/documents.ts';
import type { Pause } from '../../examples/astro/src/ai-sessions/line.ts';

export type Sent = { method: string; path: string; headers: Headers; body: unknown };
export type Reply = Response | Error | ((signal: AbortSignal) => Promise<Response>);

export type Scripted = ConnectOptions & { sent: Sent[]; pauses_ms: number[]; renewals: boolean[] };

export function scripted(...replies: Reply[]): Scripted {
  const sent: Sent[] = [];
  const pauses_ms: number[] = [];
  const renewals: boolean[] = [];
  const pause: Pause = async (ms, signal) => {
    signal.throwIfAborted();
    pauses_ms.push(ms);
  };
  return {
    sent,
    pauses_ms,
    renewals,
    url: 'https://service.example',
    async accessToken(renew) {
      renewals.push(renew);
      return renew ? 'new-token' : 'token';
    },
    async fetch(input, init) {
      const { origin, pathname, search } = new URL(String(input));
      assert.equal(origin, 'https://service.example');
      const body = typeof init?.body === 'string' ? JSON.parse(init.body) : undefined;
      sent.push({ method: init?.method ?? 'GET', path: pathname + search, headers: new Headers(init?.headers), body });
      const reply = replies.shift();
      assert.ok(reply !== undefined, `an answer for ${init?.method} ${pathname}`);
      init?.signal?.throwIfAborted();
      if (reply instanceof Error) throw reply;
      return reply instanceof Response ? reply : reply(init?.signal ?? new AbortController().signal);
    },
    pause,
  };
}

export const json = (body: unknown, status = 200, headers: Record<string, string> = {}) => Response.json(body, { status, headers });

export function problem(status: number, code: ProblemCode, more: Partial<Problem> = {}, headers: Record<string, string> = {}): Response {
  return json(document(status, code, more), status, { 'content-type': 'application/problem+json', ...headers });
}

export function document(status: number, code: ProblemCode, more: Partial<Problem> = {}): Problem {
  return { type: `https://service.example/docs#${code}`, title: code, status, detail: 'what happened', code, request_id: 'r', ...more };
}

/** The error of a browser without a response. */
export const noAnswer = () => new TypeError('Failed to fetch');

export type SentEvent = [id: string, type: string, data: object];

/** A stream of these events, then an end, a cut, or silence until the client closes it. */
export function events(sent: SentEvent[], then: 'end' | 'break' | 'silence' = 'end'): (signal: AbortSignal) => Promise<Response> {
  return async (signal) => {
    const text = sent.map(([id, type, data]) => `id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`).join('');
    const chunks = [new TextEncoder().encode(text)];
    const body = new ReadableStream<Uint8Array>(
      {
        start(controller) {
          signal.addEventListener('abort', () => controller.error(signal.reason));
        },
        async pull(controller) {
          const chunk = chunks.shift();
          if (chunk !== undefined) controller.enqueue(chunk);
          else if (then === 'end') controller.close();
          else if (then === 'break') controller.error(new TypeError('network error'));
        },
      },
      { highWaterMark: 0 },
    );
    return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
  };
}

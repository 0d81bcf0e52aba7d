// The line between the browser and the service: it can be cut in the middle of an answer, be down, and hold answers back.

import { request as httpRequest } from 'node:http';
import { pipeline } from 'node:stream';
import type { Gate } from '../support/gate.ts';
import { type LoopbackServer, startLoopbackServer } from '../support/loopback_server.ts';

export type Line = LoopbackServer & {
  /** Requests go through from now on; their answers wait at the gate (but a preflight's, without which nothing is asked). */
  hold(gate: Gate): void;
};

/** `to` is where the service is now. */
export async function startLine(to: () => string): Promise<Line> {
  let gate: Gate | undefined;
  const server = await startLoopbackServer((incoming, outgoing) => {
    const { method, headers, url = '/' } = incoming;
    const onward = httpRequest(to() + url, { method, headers, agent: false }, async (answer) => {
      if (method !== 'OPTIONS') await gate?.pass();
      // Whoever asked may have left meanwhile.
      if (outgoing.destroyed) {
        answer.destroy();
        return;
      }
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      outgoing.flushHeaders();
      // A side that leaves takes the other one with it, as on a real line.
      pipeline(answer, outgoing, () => {});
    });
    pipeline(incoming, onward, () => {});
    onward.on('error', () => outgoing.destroy());
    outgoing.on('close', () => onward.destroy());
  });
  return Object.assign(server, { hold: (at: Gate) => void (gate = at) });
}

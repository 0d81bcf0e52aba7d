// The line between the browser and the service: it can be cut in the middle of an answer, and be down.

import { request as ask } from 'node:http';
import { pipeline } from 'node:stream';
import { type LoopbackServer, startLoopbackServer } from '../support/loopback_server.ts';

/** `to` is where the service is now. */
export function startLine(to: () => string): Promise<LoopbackServer> {
  return startLoopbackServer((incoming, outgoing) => {
    const { method, headers, url = '/' } = incoming;
    const onward = ask(to() + url, { method, headers, agent: false }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      outgoing.flushHeaders();
      // A side that leaves takes the other one with it, as on a real line.
      pipeline(answer, outgoing, () => {});
    });
    pipeline(incoming, onward, () => {});
    onward.on('error', () => outgoing.destroy());
    outgoing.on('close', () => onward.destroy());
  });
}

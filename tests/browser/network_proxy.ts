// A proxy between the browser and the service: it can cut a response, be down, and delay responses. Like the gateway of
// Supabase, it can serve the service under a base path.

import { request as httpRequest } from 'node:http';
import { pipeline } from 'node:stream';
import type { Gate } from '../support/gate.ts';
import { type LoopbackServer, startLoopbackServer } from '../support/loopback_server.ts';

export type NetworkProxy = LoopbackServer & {
  /** Forwards requests from now on; their responses wait at the gate, except those to preflights. */
  hold(gate: Gate): void;
};

/** `to` returns the current URL of the service. The base path is required in each request, and removed from it. */
export async function startNetworkProxy(to: () => string, basePath = ''): Promise<NetworkProxy> {
  let gate: Gate | undefined;
  const server = await startLoopbackServer((incoming, outgoing) => {
    const { method, headers, url = '/' } = incoming;
    if (!url.startsWith(`${basePath}/`)) {
      outgoing.writeHead(404).end();
      return;
    }
    const onward = httpRequest(to() + url.slice(basePath.length), { method, headers, agent: false }, async (answer) => {
      if (method !== 'OPTIONS') await gate?.pass();
      // The client may have left meanwhile.
      if (outgoing.destroyed) {
        answer.destroy();
        return;
      }
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      outgoing.flushHeaders();
      // When one side closes, so does the other, as without a proxy.
      pipeline(answer, outgoing, () => {});
    });
    pipeline(incoming, onward, () => {});
    onward.on('error', () => outgoing.destroy());
    outgoing.on('close', () => onward.destroy());
  });
  return Object.assign(server, { hold: (at: Gate) => void (gate = at) });
}

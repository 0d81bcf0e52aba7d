// An HTTP server on 127.0.0.1 that can be down and up again on the same port.

import { createServer, type IncomingMessage, type RequestListener } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

export type LoopbackServer = {
  /** `http://127.0.0.1:port`, without a slash at the end. */
  url: string;
  /** Cuts all connections, and resets new ones from now on. */
  down(): void;
  up(): void;
  close(): Promise<void>;
};

/** Ten minutes: a client's kept connections must not be closed as idle. */
const KEEP_ALIVE_MS = 600_000;

/** Node's default of 16 KiB is less than any platform allows. */
const HEADER_BYTES_MAX = 128 * 1024;

/** `port` 0 takes a free one. */
export async function startLoopbackServer(listener: RequestListener, port = 0): Promise<LoopbackServer> {
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS, maxHeaderSize: HEADER_BYTES_MAX, requestTimeout: 0, noDelay: true }, listener);
  const sockets = new Set<Socket>();
  let isDown = false;
  server.on('connection', (socket) => {
    // New connections are reset and the port stays open, so that no other process takes it.
    if (isDown) {
      socket.resetAndDestroy();
      return;
    }
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('clientError', (_error, socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => resolve());
  });
  const cutAll = () => {
    for (const socket of sockets) socket.resetAndDestroy();
  };
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    down() {
      isDown = true;
      cutAll();
    },
    up() {
      isDown = false;
    },
    close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      cutAll();
      return closed;
    },
  };
}

/** The whole body of a request. */
export async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

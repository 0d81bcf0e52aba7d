// The gateway of a Supabase project (Kong): `/rest/v1` is forwarded to PostgREST and requires an `apikey`, `/auth/v1` is
// forwarded to the sign-in stand-in. All requests are recorded, and faults can be set on any of them.

import { type IncomingMessage, request as httpRequest, type ServerResponse } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import type { Gate } from './gate.ts';
import { bodyOf, type LoopbackServer, startLoopbackServer } from './loopback_server.ts';
import { type RecordedRequest, RecordedRequests } from './recorded_requests.ts';
import { jsonResponse, type StandInResponse } from './stand_in_response.ts';

/** Sessions are opened, read and listed here. */
export const SESSIONS_PATH = '/rest/v1/ai_generation_sessions';
/** Sessions are completed here. */
export const FINISH_PATH = '/rest/v1/rpc/finish_ai_session';

/** The user state is read and stored here, on a host that keeps it in Postgres. */
export const USER_STATE_PATH = '/rest/v1/rpc/transact_ai_user_state';

/** Whether a request concerns the rows of sessions and events: all requests to the database but those for the user state. */
export const concernsRows = ({ path }: GatewayRequest) => path.startsWith('/rest/v1/') && !path.startsWith(USER_STATE_PATH);

export type GatewayRequest = RecordedRequest & {
  /** The status of the response; missing while the client waits. */
  status?: number;
};

/**
 * A fault. With `kept`, the request takes effect in the database first, and only the response is lost, late or wrong.
 */
export type Fault = { kept?: boolean } & (
  | { kind: 'answer'; status: number; body?: string | Uint8Array | object; headers?: Record<string, string> }
  /** Continues after that many milliseconds. */
  | { kind: 'delay'; ms: number }
  /** Continues when the gate opens. */
  | { kind: 'gate'; gate: Gate }
  /** Never answers. */
  | { kind: 'hang' }
  /** Sends status and headers and half of the body, and never ends. */
  | { kind: 'endless' }
  /** Cuts the connection. */
  | { kind: 'cut' }
);

export type SetFault = {
  /** The number of requests that met it. */
  hits: number;
  /** Removes the fault; requests that hang or wait at a gate stay there. */
  clear(): void;
};

export type Gateway = {
  url: string;
  requests: RecordedRequests<GatewayRequest>;
  /** Sets a fault for matching requests: the next `times`, or all until it is cleared. */
  fail(matches: string | ((request: GatewayRequest) => boolean), fault: Fault, times?: number): SetFault;
  clearFaults(): void;
  down(): void;
  up(): void;
  close(): Promise<void>;
};

export type GatewayParts = {
  port?: number | undefined;
  anonKey: string;
  /** The socket of PostgREST. */
  restSocket: () => string;
  auth: (request: GatewayRequest) => Promise<StandInResponse>;
};

type ArmedFault = { matches: (request: GatewayRequest) => boolean; fault: Fault; left: number; set: SetFault };

export async function startGateway(parts: GatewayParts): Promise<Gateway> {
  const requests = new RecordedRequests<GatewayRequest>();
  const faults = new Set<ArmedFault>();

  function takeFault(request: GatewayRequest): Fault | undefined {
    for (const armed of faults) {
      if (!armed.matches(request)) continue;
      armed.set.hits += 1;
      armed.left -= 1;
      if (armed.left <= 0) faults.delete(armed);
      return armed.fault;
    }
    return undefined;
  }

  async function route(request: GatewayRequest, body: Buffer): Promise<StandInResponse> {
    const path = request.path.split('?', 1)[0] ?? '';
    // The JWKS is public; all other paths require the key.
    if (path === '/auth/v1/.well-known/jwks.json') return parts.auth(request);
    const refusal = refuseApiKey(request.headers['apikey'], parts.anonKey);
    if (refusal !== undefined) return refusal;
    if (path.startsWith('/auth/v1/')) return parts.auth(request);
    if (path.startsWith('/rest/v1/')) return forward(request, body, parts.restSocket());
    return jsonResponse(404, { message: 'no Route matched with those values' });
  }

  async function handle(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const body = await bodyOf(incoming);
    const request = requests.record({
      method: incoming.method ?? '',
      path: incoming.url ?? '',
      headers: { ...incoming.headers },
      raw: body.toString('utf8'),
    });
    const send = (reply: StandInResponse) => {
      request.status = reply.status;
      outgoing.writeHead(reply.status, { ...reply.headers, ...corsHeaders(incoming) });
      outgoing.end(reply.body);
    };

    const fault = takeFault(request);
    if (fault === undefined) {
      if (request.method === 'OPTIONS') return send({ status: 204, headers: {}, body: '' });
      return send(await route(request, body));
    }

    const kept = fault.kept === true ? await route(request, body) : undefined;
    switch (fault.kind) {
      case 'answer':
        return send(faultyResponse(fault));
      case 'delay':
        await pause(fault.ms);
        return send(kept ?? (await route(request, body)));
      case 'gate':
        await fault.gate.pass();
        return send(kept ?? (await route(request, body)));
      case 'hang':
        return;
      case 'endless': {
        const reply = kept ?? { status: 200, headers: { 'content-type': 'application/json' }, body: '[{"id":' };
        request.status = reply.status;
        outgoing.writeHead(reply.status, withoutLength(reply.headers));
        outgoing.flushHeaders();
        outgoing.write(Buffer.from(reply.body).subarray(0, Math.ceil(reply.body.length / 2)));
        return;
      }
      case 'cut':
        incoming.socket.resetAndDestroy();
    }
  }

  const server: LoopbackServer = await startLoopbackServer((incoming, outgoing) => {
    handle(incoming, outgoing).catch((error: unknown) => {
      // A client that left in the middle of its request is expected; other errors are logged.
      if (!incoming.socket.destroyed) console.error('local gateway:', error);
      incoming.socket.destroy();
    });
  }, parts.port);

  return {
    url: server.url,
    requests,
    fail(matches, fault, times = Number.POSITIVE_INFINITY) {
      const armed: ArmedFault = {
        matches: typeof matches === 'string' ? (request) => request.path.includes(matches) : matches,
        fault,
        left: times,
        set: { hits: 0, clear: () => faults.delete(armed) },
      };
      faults.add(armed);
      return armed.set;
    },
    clearFaults: () => faults.clear(),
    down: server.down,
    up: server.up,
    close: server.close,
  };
}

/** The messages of Kong. */
function refuseApiKey(given: string | string[] | undefined, anonKey: string): StandInResponse | undefined {
  if (given === anonKey) return undefined;
  if (given === undefined) {
    return jsonResponse(401, {
      message: 'No API key found in request',
      hint: 'No `apikey` request header or url param was found.',
    });
  }
  return jsonResponse(401, {
    message: 'Invalid API key',
    hint: 'Double check your Supabase `anon` or `service_role` API key.',
  });
}

/** Headers that belong to one connection, not to the message (RFC 9110 7.6.1). */
const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'host']);

function forward(request: GatewayRequest, body: Buffer, socketPath: string): Promise<StandInResponse> {
  const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => !HOP_BY_HOP.has(name)));
  if (body.length > 0) headers['content-length'] = String(body.length);
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(
      { socketPath, agent: false, method: request.method, path: request.path.slice('/rest/v1'.length), headers },
      (answer) => {
        bodyOf(answer).then((bytes) => {
          const kept = Object.entries(answer.headers).filter(([name]) => !HOP_BY_HOP.has(name));
          const answered = Object.fromEntries(kept.map(([name, value]) => [name, String(value)]));
          resolve({ status: answer.statusCode ?? 502, headers: answered, body: bytes });
        }, reject);
      },
    );
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

function faultyResponse(fault: Extract<Fault, { kind: 'answer' }>): StandInResponse {
  const { status, body = '', headers = {} } = fault;
  if (typeof body === 'string' || body instanceof Uint8Array) {
    return { status, headers: { 'content-type': 'application/json', ...headers }, body };
  }
  return jsonResponse(status, body, headers);
}

function withoutLength(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => name !== 'content-length'));
}

function corsHeaders(incoming: IncomingMessage): Record<string, string> {
  const requested = incoming.headers['access-control-request-headers'];
  return {
    'access-control-allow-origin': '*',
    'access-control-allow-methods': 'GET, HEAD, PUT, PATCH, POST, DELETE, OPTIONS',
    'access-control-allow-headers': requested === undefined ? '*' : String(requested),
    'access-control-expose-headers': '*',
    'access-control-max-age': '3600',
  };
}

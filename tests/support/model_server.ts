// A stand-in for OpenRouter: its chat completions (streamed or not), its key state and its list of models, on 127.0.0.1. It
// makes candidates from the text and can fail in the ways of model_behaviour.ts.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { bodyOf, startLoopbackServer } from './loopback_server.ts';
import { goodAnswer, type ModelBehaviour } from './model_answer.ts';
import type { CompletionBody, ModelRequest } from './model_request.ts';
import { ClientLeft, MODEL_STAND_IN, ModelTurn } from './model_turn.ts';
import { RecordedRequests } from './recorded_requests.ts';
import { within } from './within.ts';

export type ModelServer = {
  /** The base URL, ending in `/api/v1`. */
  url: string;
  /** The API key. */
  key: string;
  /** Requests for completions. */
  requests: RecordedRequests<ModelRequest>;
  /** Requests for anything else (`/key`, `/models`). */
  otherRequests: RecordedRequests<ModelRequest>;
  /** Sets the behaviour of the next request, or of the next `times`; several calls queue up. */
  next(behaviour: ModelBehaviour, times?: number): void;
  /** Sets the behaviour of requests while none is queued. */
  always(behaviour: ModelBehaviour): void;
  /** Accepts another API key too. */
  addKey(key: string): void;
  /** Refuses a key from now on. */
  removeKey(key: string): void;
  /** Sets the behaviour of `/key`; null for the good answer. */
  onKey(behaviour: ModelBehaviour | null): void;
  /** Resets behaviours and records, and is up. */
  reset(): void;
  /** Resolves to the n-th completion request when it arrives. */
  arrived(n: number, deadline_ms?: number): Promise<ModelRequest>;
  /** Resolves to the n-th completion request when its client has closed the connection early. */
  aborted(n: number, deadline_ms?: number): Promise<ModelRequest>;
  down(): void;
  up(): void;
  close(): Promise<void>;
};

export async function startModelServer(port?: number): Promise<ModelServer> {
  const key = `sk-or-v1-stand-in-${crypto.randomUUID()}`;
  const requests = new RecordedRequests<ModelRequest>();
  const otherRequests = new RecordedRequests<ModelRequest>();
  const queue: ModelBehaviour[] = [];
  let standing = goodAnswer;
  const keys = new Set([key]);
  let keyState: ModelBehaviour | null = null;
  let serverEnds = false;

  async function handle(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const raw = (await bodyOf(incoming)).toString('utf8');
    const path = incoming.url ?? '';
    const isCompletion = incoming.method === 'POST' && path === '/api/v1/chat/completions';
    const over = Promise.withResolvers<'answered' | 'client left' | 'server cut'>();
    const request = (isCompletion ? requests : otherRequests).record({
      method: incoming.method ?? '',
      path,
      headers: { ...incoming.headers },
      raw,
      body: parsed(raw),
      over: over.promise,
    });
    const turn = new ModelTurn(request, outgoing);
    outgoing.once('close', () => {
      const cut = turn.wasCut || serverEnds;
      request.end = outgoing.writableFinished ? 'answered' : cut ? 'server cut' : 'client left';
      over.resolve(request.end);
    });

    const behaviour = isCompletion ? takeBehaviour(request) : other(request);
    try {
      await behaviour(turn);
    } catch (error) {
      if (!(error instanceof ClientLeft)) throw error;
    }
  }

  function takeBehaviour(request: ModelRequest): ModelBehaviour {
    // Queued behaviours come first: a test that queues a 401 does not depend on the key.
    const scripted = queue.shift();
    if (scripted !== undefined) return scripted;
    return refuseKey(request) ?? standing;
  }

  function other(request: ModelRequest): ModelBehaviour {
    switch (`${request.method} ${request.path}`) {
      case 'GET /api/v1/key':
        return keyState ?? refuseKey(request) ?? ((turn) => turn.reply(200, KEY_STATE));
      case 'GET /api/v1/models':
        return (turn) => turn.reply(200, MODELS);
      default:
        return (turn) => turn.reply(404, { error: { message: 'Not Found', code: 404 } });
    }
  }

  function refuseKey(request: ModelRequest): ModelBehaviour | undefined {
    const given = request.headers['authorization'];
    if ([...keys].some((key) => given === `Bearer ${key}`)) return undefined;
    const message = given === undefined ? 'No auth credentials found' : 'User not found.';
    return (turn) => turn.reply(401, { error: { message, code: 401 } });
  }

  const server = await startLoopbackServer((incoming, outgoing) => {
    handle(incoming, outgoing).catch((error: unknown) => {
      if (!incoming.socket.destroyed) console.error(`${MODEL_STAND_IN}:`, error);
      incoming.socket.destroy();
    });
  }, port);

  return {
    url: `${server.url}/api/v1`,
    key,
    requests,
    otherRequests,
    next(behaviour, times = 1) {
      for (let i = 0; i < times; i += 1) queue.push(behaviour);
    },
    always(behaviour) {
      standing = behaviour;
    },
    addKey: (added) => void keys.add(added),
    removeKey: (removed) => void keys.delete(removed),
    onKey(behaviour) {
      keyState = behaviour;
    },
    reset() {
      queue.length = 0;
      standing = goodAnswer;
      keyState = null;
      serverEnds = false;
      requests.clear();
      otherRequests.clear();
      server.up();
    },
    arrived: (n, deadline_ms) => requests.nth(n, deadline_ms),
    async aborted(n, deadline_ms) {
      const request = await requests.nth(n, deadline_ms);
      const end = await within(request.over, `the client leaves request ${n}`, deadline_ms);
      if (end !== 'client left') throw new Error(`request ${n} ended otherwise: ${end}`);
      return request;
    },
    down() {
      serverEnds = true;
      server.down();
    },
    up() {
      serverEnds = false;
      server.up();
    },
    close() {
      serverEnds = true;
      return server.close();
    },
  };
}

function parsed(raw: string): CompletionBody | undefined {
  try {
    return JSON.parse(raw) as CompletionBody;
  } catch {
    return undefined;
  }
}

const KEY_STATE = {
  data: {
    label: 'sk-or-v1-stand-in',
    limit: null,
    limit_remaining: null,
    usage: 0,
    is_free_tier: false,
    is_provisioning_key: false,
    rate_limit: { requests: -1, interval: '10s', note: 'stand-in' },
  },
};

const MODELS = {
  data: [
    {
      id: 'stand-in/model',
      name: MODEL_STAND_IN,
      context_length: 131_072,
      pricing: { prompt: '0.00000015', completion: '0.0000006' },
      supported_parameters: ['response_format', 'structured_outputs'],
    },
  ],
};

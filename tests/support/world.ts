// The local world: all upstreams of the service on this machine. A real Postgres and a real PostgREST with this project's
// migrations, and two marked stand-ins: the sign-in and the model. `npm run dev` and the tests start it. Worlds share
// nothing: each has its own ports and database, and `close` leaves nothing.

import { randomBytes } from 'node:crypto';
import { AccessTokens, type TokenOptions, type TokenUser } from './access_tokens.ts';
import { type Database, type Sql, startDatabase } from './database.ts';
import { type Gateway, startGateway } from './gateway.ts';
import { type ModelServer, startModelServer } from './model_server.ts';
import { MODEL_STAND_IN } from './model_turn.ts';
import { type Postgrest, startPostgrest } from './postgrest.ts';
import { createSignIn, type SignIn, STAND_IN } from './sign_in.ts';
import { createSigningKey, type SigningKey } from './signing_keys.ts';

export type WorldOptions = {
  /** Postgres, PostgREST, the sign-in and the gateway before them. Default true. */
  database?: boolean;
  /** The model server. Default true. */
  model?: boolean;
  /** Fixed ports; default: free ones. */
  ports?: { gateway?: number; model?: number };
  /** Receives a line for each part that is up. Default: none. */
  log?: (line: string) => void;
};

export type User = { id: string; email: string | null; password: string | null; anonymous: boolean };

export type RestAnswer = { status: number; headers: Headers; body: unknown };

/** Sends a request to `/rest/v1` as one actor; `body` is sent as JSON. Returns the parsed JSON, or null for an empty body. */
export type Rest = (
  method: string,
  path: string,
  body?: unknown,
  headers?: Record<string, string>,
) => Promise<RestAnswer>;

export type WorldAuth = {
  createUser(wanted?: { email?: string; password?: string; anonymous?: boolean }): Promise<User>;
  token(user: TokenUser, options?: TokenOptions): string;
  /** Makes and publishes a new current key; the old ones stay until they are retired. Returns its kid. */
  rotate(alg?: SigningKey['alg']): Promise<string>;
  /** Removes a key from the JWKS and from the database's keys. */
  retire(kid: string): Promise<void>;
  /** The current signing key. */
  readonly current: SigningKey;
  /** All keys with their private halves: for forging. */
  readonly keys: readonly SigningKey[];
  /** The published keys. */
  readonly jwks: { keys: object[] };
  /** The number of JWKS requests. */
  readonly jwksRequests: number;
};

/** The parts of `database: true`. */
export type DatabaseWorld = {
  supabaseUrl: string;
  anonKey: string;
  /** For tests that forge tokens: the system does not use it. */
  serviceKey: string;
  jwtSecret: string;
  auth: WorldAuth;
  gateway: Omit<Gateway, 'close'>;
  sql: Sql;
  /** A superuser's connection string, for psql. */
  databaseUrl: string;
  /** The servers in child processes. */
  pids: number[];
  rest(token?: string): Rest;
};

export type World = DatabaseWorld & {
  openrouter: Omit<ModelServer, 'close'>;
  close(): Promise<void>;
};

/** Starts the requested parts; members of the others are undefined. */
export async function startWorld(options: WorldOptions = {}): Promise<World> {
  const log = options.log ?? (() => {});
  const closers: (() => Promise<void>)[] = [];
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= closeAll(closers);
    return closing;
  };
  try {
    const started = await Promise.allSettled([
      options.database === false ? undefined : startDatabaseWorld(options.ports?.gateway, closers, log),
      options.model === false ? undefined : startModel(options.ports?.model, closers, log),
    ]);
    for (const part of started) if (part.status === 'rejected') throw part.reason;
    const [database, model] = started.map((part) => (part.status === 'fulfilled' ? part.value : undefined)) as [
      DatabaseWorld,
      ModelServer,
    ];
    return { ...database, openrouter: model, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function startModel(
  port: number | undefined,
  closers: (() => Promise<void>)[],
  log: (line: string) => void,
): Promise<ModelServer> {
  const model = await startModelServer(port);
  closers.push(model.close);
  log(`${MODEL_STAND_IN} (a stand-in for OpenRouter, not a model) at ${model.url}`);
  return model;
}

async function startDatabaseWorld(
  port: number | undefined,
  closers: (() => Promise<void>)[],
  log: (line: string) => void,
): Promise<DatabaseWorld> {
  const jwtSecret = randomBytes(32).toString('base64url');
  const [es256, rs256, database] = await startTogether(closers);
  const tokens = new AccessTokens([es256, rs256], jwtSecret, () => `${gateway.url}/auth/v1`);
  const postgrest: Postgrest = await startPostgrest(database.postgres, tokens.verifierJwks);
  closers.push(postgrest.stop);
  const signIn: SignIn = createSignIn(database.sql, tokens);
  const anonKey = tokens.apiKey('anon');
  const gateway: Gateway = await startGateway({
    port,
    anonKey,
    restSocket: () => postgrest.socket,
    auth: signIn.answer,
  });
  closers.push(gateway.close);
  log(`Postgres and PostgREST with this project's migrations at ${gateway.url}/rest/v1`);
  log(`${STAND_IN} (a stand-in for Supabase Auth) at ${gateway.url}/auth/v1`);

  return {
    supabaseUrl: gateway.url,
    anonKey,
    serviceKey: tokens.apiKey('service_role'),
    jwtSecret,
    auth: worldAuth(tokens, signIn, postgrest, gateway),
    gateway,
    sql: database.sql,
    databaseUrl: database.postgres.url('supabase_admin'),
    pids: [database.postgres.pid, postgrest.pid],
    rest: (token) => restAs(gateway.url, anonKey, token),
  };
}

/** An RSA key takes as long as a database: make the keys concurrently. */
async function startTogether(closers: (() => Promise<void>)[]): Promise<[SigningKey, SigningKey, Database]> {
  const database = startDatabase().then((started) => {
    closers.push(started.stop);
    return started;
  });
  return Promise.all([createSigningKey('ES256'), createSigningKey('RS256'), database]);
}

function worldAuth(tokens: AccessTokens, signIn: SignIn, postgrest: Postgrest, gateway: Gateway): WorldAuth {
  return {
    async createUser(wanted = {}) {
      const anonymous = wanted.anonymous ?? false;
      const email = anonymous ? null : (wanted.email ?? `${crypto.randomUUID()}@example.test`);
      const password = anonymous ? null : (wanted.password ?? crypto.randomUUID());
      const row = await signIn.createUser(email === null || password === null ? { anonymous } : { email, password });
      return { id: row.id, email: row.email, password, anonymous };
    },
    token: (user, options) => tokens.sign(user, options),
    async rotate(alg = 'ES256') {
      const kid = await tokens.rotate(alg);
      await postgrest.useKeys(tokens.verifierJwks);
      return kid;
    },
    async retire(kid) {
      tokens.retire(kid);
      await postgrest.useKeys(tokens.verifierJwks);
    },
    get current() {
      return tokens.current;
    },
    get keys() {
      return tokens.keys;
    },
    get jwks() {
      return tokens.jwks;
    },
    get jwksRequests() {
      return gateway.requests.count('GET', '/auth/v1/.well-known/jwks.json');
    },
  };
}

function restAs(url: string, anonKey: string, token: string | undefined): Rest {
  return async (method, path, body, headers = {}) => {
    const answer = await fetch(`${url}/rest/v1${path}`, {
      method,
      headers: {
        apikey: anonKey,
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    const text = await answer.text();
    return { status: answer.status, headers: answer.headers, body: text === '' ? null : JSON.parse(text) };
  };
}

/** Closes the parts in reverse order, each even if another fails. */
async function closeAll(closers: (() => Promise<void>)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const close of closers.toReversed()) {
    try {
      await close();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw new AggregateError(failures, 'the world did not close');
}

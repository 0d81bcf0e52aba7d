// What every file here gets: a way to start the service, whatever host it runs on, and the world around it.

import type { User, World } from '../support/world.ts';

/** A running service in a local world of its own. */
export type Service = {
  /** Without a slash at the end. */
  readonly url: string;
  readonly world: World;
  /** Every line that the host has written. */
  readonly logs: string[];
  /** Stops it and starts it again on the same storage. */
  restart(): Promise<void>;
  close(): Promise<void>;
};

/** Starts one; `variables` are those of the README's table. */
export type StartService = (variables?: Record<string, string>) => Promise<Service>;

/** An answer, read whole. */
export type Answer = { status: number; headers: Headers; body: any; text: string };

/** One request; a body goes as JSON unless it is a string or bytes. */
export async function ask(
  service: Service,
  method: string,
  path: string,
  options: { token?: string; headers?: Record<string, string>; body?: unknown; signal?: AbortSignal } = {},
): Promise<Answer> {
  const headers = new Headers(options.headers);
  if (options.token !== undefined) headers.set('authorization', `Bearer ${options.token}`);
  const init: RequestInit = { method, headers, redirect: 'manual', ...(options.signal ? { signal: options.signal } : {}) };
  if (options.body !== undefined) {
    if (!headers.has('content-type')) headers.set('content-type', 'application/json');
    const raw = typeof options.body === 'string' || options.body instanceof Uint8Array;
    init.body = raw ? (options.body as string) : JSON.stringify(options.body);
  }
  const response = await fetch(service.url + path, init);
  const text = await response.text();
  const isJson = response.headers.get('content-type')?.includes('json') ?? false;
  return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : undefined, text };
}

/** A text that holds, of exactly so many characters. */
export function textOf(characters: number, seed = 'The water of the sea rises as vapour and comes back as rain. '): string {
  const all = [...seed.repeat(Math.ceil(characters / [...seed].length))].slice(0, characters);
  if (/\s/u.test(all.at(-1) ?? '')) all[all.length - 1] = 'x';
  return all.join('');
}

/** A user who has signed in. */
export async function signIn(service: Service): Promise<User & { token: string }> {
  const user = await service.world.auth.createUser();
  return { ...user, token: service.world.auth.token(user) };
}

/** `POST /ai-sessions` as that user. */
export function create(
  service: Service,
  token: string,
  body: unknown = { input_text: textOf(1500), model: 'test/first' },
  headers: Record<string, string> = {},
): Promise<Answer> {
  return ask(service, 'POST', '/ai-sessions', { token, body, headers });
}

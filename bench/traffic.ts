/** The requests of a run: their users, tokens and bodies. */
import { randomUUID } from 'node:crypto';
import { AccessTokens } from '../tests/support/access_tokens.ts';
import { createSigningKey } from '../tests/support/signing_keys.ts';
import type { HttpRequest } from './client.ts';
import { MODEL } from './targets.ts';

/** Enough users to stay below the limits, few enough to have their objects in memory after a warm-up. */
const USERS = 32;

const TEXT = 'Water rises from the sea as vapour, falls on the land as rain, and runs back in rivers. '.repeat(23).trim();

export type Traffic = {
  keySet: object;
  /** The users of all rounds. */
  users: string[];
  /** Makes users that have no object yet. */
  newUsers(): string[];
  /** A token is never sent twice, so that each has to be verified. */
  plain(user: string): HttpRequest;
  stream(user: string): HttpRequest;
  forged(user: string): HttpRequest;
  tooShort(user: string): HttpRequest;
  health(): HttpRequest;
};

export async function createTraffic(issuer: () => string): Promise<Traffic> {
  const tokens = new AccessTokens([await createSigningKey('ES256')], randomUUID(), issuer);
  const tokenOf = (user: string) => tokens.sign({ id: user, email: `${user}@example.test` });
  const post = (token: string, input_text: string, more: Record<string, string> = {}): HttpRequest => ({
    method: 'POST',
    path: '/ai-sessions',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', origin: 'https://cards.example', ...more },
    body: JSON.stringify({ input_text, model: MODEL }),
  });
  const newUsers = () => Array.from({ length: USERS }, () => randomUUID());
  return {
    keySet: tokens.jwks,
    users: newUsers(),
    newUsers,
    plain: (user) => post(tokenOf(user), TEXT),
    stream: (user) => post(tokenOf(user), TEXT, { accept: 'text/event-stream' }),
    forged: (user) => post(withOtherSignature(tokenOf(user), tokenOf(user)), TEXT),
    tooShort: (user) => post(tokenOf(user), 'too short'),
    health: () => ({ method: 'GET', path: '/health', headers: {} }),
  };
}

/** Makes `count` requests of these users in turn. */
export const inTurns = (users: string[], count: number, request: (user: string) => HttpRequest): HttpRequest[] =>
  Array.from({ length: count }, (_, index) => request(users[index % users.length] ?? ''));

/** Replaces the signature by one of the same key over another token. */
function withOtherSignature(token: string, other: string): string {
  const [header, claims] = token.split('.');
  return [header, claims, other.split('.')[2]].join('.');
}

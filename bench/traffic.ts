/** The requests of a run: who asks, with which token, for what. */
import { randomUUID } from 'node:crypto';
import { AccessTokens } from '../tests/support/access_tokens.ts';
import { createSigningKey } from '../tests/support/signing_keys.ts';
import type { HttpRequest } from './client.ts';
import { MODEL } from './targets.ts';

/** Enough that none of them is at a limit, few enough that their objects are in memory after a warm-up. */
const USERS = 32;

const TEXT = 'Water rises from the sea as vapour, falls on the land as rain, and runs back in rivers. '.repeat(23).trim();

export type Traffic = {
  keySet: object;
  /** Those that come again and again. */
  users: string[];
  /** Nobody has seen these before. */
  newUsers(): string[];
  /** Tokens are never sent twice, so that each has to be verified. */
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

/** `count` requests of these users, who take turns. */
export const inTurns = (users: string[], count: number, request: (user: string) => HttpRequest): HttpRequest[] =>
  Array.from({ length: count }, (_, index) => request(users[index % users.length] ?? ''));

/** A signature of the right form by the right key, over another token. */
function withOtherSignature(token: string, other: string): string {
  const [header, claims] = token.split('.');
  return [header, claims, other.split('.')[2]].join('.');
}

/** The requests of a run: who asks, with which token, for what. */
import { randomUUID } from 'node:crypto';
import { AccessTokens } from '../tests/support/access_tokens.ts';
import { createSigningKey } from '../tests/support/signing_keys.ts';
import type { Ask } from './client.ts';
import { MODEL } from './targets.ts';

/** Enough that none of them is at a limit, few enough that their objects are in memory after a warm-up. */
const USERS = 32;

const TEXT = 'Water rises from the sea as vapour, falls on the land as rain, and runs back in rivers. '.repeat(23).trim();

export type Asks = {
  keySet: object;
  /** Tokens are never sent twice, so that each has to be verified. */
  plain(index: number): Ask;
  newUser(): Ask;
  stream(index: number): Ask;
  forged(index: number): Ask;
  tooShort(index: number): Ask;
  health(): Ask;
};

export async function createAsks(issuer: () => string): Promise<Asks> {
  const tokens = new AccessTokens([await createSigningKey('ES256')], randomUUID(), issuer);
  const users = Array.from({ length: USERS }, () => randomUUID());
  const tokenOf = (user: string) => tokens.sign({ id: user, email: `${user}@example.test` });
  const post = (token: string, input_text: string, more: Record<string, string> = {}): Ask => ({
    method: 'POST',
    path: '/ai-sessions',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', origin: 'https://cards.example', ...more },
    body: JSON.stringify({ input_text, model: MODEL }),
  });
  const next = (index: number) => tokenOf(users[index % USERS] ?? '');
  return {
    keySet: tokens.jwks,
    plain: (index) => post(next(index), TEXT),
    newUser: () => post(tokenOf(randomUUID()), TEXT),
    stream: (index) => post(next(index), TEXT, { accept: 'text/event-stream' }),
    forged: (index) => post(withOtherSignature(next(index), next(index)), TEXT),
    tooShort: (index) => post(next(index), 'too short'),
    health: () => ({ method: 'GET', path: '/health', headers: {} }),
  };
}

/** A signature of the right form by the right key, over another token. */
function withOtherSignature(token: string, other: string): string {
  const [header, claims] = token.split('.');
  return [header, claims, other.split('.')[2]].join('.');
}

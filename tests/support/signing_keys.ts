// Keys for access tokens, and the signing: any header and claims, valid or not. Tests forge tokens with it.

import { createHmac, generateKeyPair, type JsonWebKey, type KeyObject, sign } from 'node:crypto';
import { promisify } from 'node:util';

export type SigningKey = {
  kid: string;
  alg: 'ES256' | 'RS256';
  privateKey: KeyObject;
  publicKey: KeyObject;
  /** The JWK of the JWKS. */
  publicJwk: JsonWebKey & { kid: string; alg: string; use: string };
};

const generate = promisify(generateKeyPair);

export async function createSigningKey(alg: SigningKey['alg']): Promise<SigningKey> {
  const kid = crypto.randomUUID();
  const { privateKey, publicKey } =
    alg === 'ES256'
      ? await generate('ec', { namedCurve: 'P-256' })
      : await generate('rsa', { modulusLength: 2048 });
  const publicJwk = { ...publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig', key_ops: ['verify'] };
  return { kid, alg, privateKey, publicKey, publicJwk };
}

/** A compact JWS over exactly these members; `key` is a private key, or a secret for HS256. */
export function signJws(header: object, claims: object, key: KeyObject | string): string {
  const input = `${encodePart(header)}.${encodePart(claims)}`;
  return `${input}.${signature(input, key).toString('base64url')}`;
}

export function encodePart(part: object | string): string {
  return Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url');
}

/** HMAC-SHA256 for a secret, RSASSA-PKCS1-v1_5 for an RSA key, raw ECDSA (r and s, 64 bytes) for P-256. */
export function signature(input: string, key: KeyObject | string): Buffer {
  if (typeof key === 'string') return createHmac('sha256', key).update(input).digest();
  return sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' });
}

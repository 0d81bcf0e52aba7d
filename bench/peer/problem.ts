/** Errors in the format of RFC 9457. */
import type { Context } from 'hono';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import type { AppContext } from './environment.ts';

export function problem(c: Context<AppContext>, status: ContentfulStatusCode, code: string, detail: string, more: object = {}): Response {
  const document = { type: `${new URL(c.req.url).origin}/docs#${code}`, title: detail, status, detail, code, request_id: c.get('requestId'), ...more };
  return c.json(document, status, { 'content-type': 'application/problem+json', 'cache-control': 'no-store' });
}

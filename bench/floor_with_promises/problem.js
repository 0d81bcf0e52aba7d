/** Errors in the format of RFC 9457. */

const KINDS = {
  missing_token: [401, 'An access token is needed'],
  invalid_token: [401, 'The access token is not valid'],
  expired_token: [401, 'The access token has expired'],
  malformed_json: [400, 'The body is not JSON'],
  validation_failed: [400, 'A field is outside its limits'],
  invalid_idempotency_key: [400, 'The idempotency key is not valid'],
  not_found: [404, 'There is no such resource'],
  body_too_large: [413, 'The body is too large'],
  idempotency_key_reused: [422, 'The idempotency key belongs to another request'],
  rate_limited: [429, 'A limit is reached'],
  too_many_generations: [429, 'Too many generations are in progress'],
  internal: [500, 'The service failed'],
  model_failed: [502, 'The model failed'],
};

export class Problem extends Error {
  /** `members`: more members of the document; `headers`: fields of this problem alone. */
  constructor(code, detail, { members = {}, headers = {} } = {}) {
    super(detail);
    Object.assign(this, { code, members, headers });
  }

  response({ request_id, origin }, headers = {}) {
    const [status, title] = KINDS[this.code];
    const document = { type: `${origin}/docs#${this.code}`, title, status, detail: this.message, code: this.code, request_id, ...this.members };
    const challenge = status === 401 ? { 'www-authenticate': `Bearer realm="ai-sessions", error="${this.code}"` } : {};
    const fields = { 'content-type': 'application/problem+json', 'cache-control': 'no-store', ...challenge, ...headers, ...this.headers };
    return new Response(JSON.stringify(document), { status, headers: fields });
  }
}

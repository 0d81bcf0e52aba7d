/** The errors: a problem of the service (`ProblemError`), or no response (`ConnectionError`). */
import type { Problem, ProblemCode } from './documents.ts';

/** An error response of the service, as `application/problem+json` (RFC 9457). */
export class ProblemError extends Error {
  override name = 'ProblemError';
  readonly problem: Problem;
  /** Seconds, if the response has a Retry-After. */
  readonly retryAfter_s: number | undefined;

  constructor(problem: Problem, retryAfter_s?: number) {
    super(`${problem.code}: ${problem.detail} (request ${problem.request_id})`);
    this.problem = problem;
    this.retryAfter_s = retryAfter_s;
  }

  get code(): ProblemCode {
    return this.problem.code;
  }

  /** The same request, with the same key, may succeed later. */
  get retryable(): boolean {
    return this.problem.retryable === true || this.code === 'rate_limited' || this.code === 'idempotency_in_progress';
  }
}

/** No response of the service: the network is down, the connection broke, or a proxy responded. */
export class ConnectionError extends Error {
  override name = 'ConnectionError';
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}

/** The error of a response other than 2xx. */
export async function errorOf(response: Response): Promise<ProblemError | ConnectionError> {
  const isProblem = response.headers.get('content-type')?.startsWith('application/problem+json') === true;
  const problem = isProblem ? await response.json().catch(() => undefined) : undefined;
  if (problem !== undefined) return new ProblemError(problem as Problem, retryAfter_s(response));
  // A proxy's page is no response of the service; with a key, a retry is harmless.
  return new ConnectionError(`an answer ${response.status} that is not the service's`);
}

/** Whole seconds, the only format that the service uses. */
export function retryAfter_s(response: Response): number | undefined {
  const field = response.headers.get('retry-after') ?? '';
  return /^\d+$/.test(field) ? Number(field) : undefined;
}

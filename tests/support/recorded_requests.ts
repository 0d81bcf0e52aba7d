// The requests of a stand-in: all are counted, the last ones kept, and promises resolve with future ones.

import { within } from './within.ts';

/** Enough for assertions on content; a load run only counts. */
const KEPT = 5000;

export type RecordedRequest = {
  /** 1 for the first request since the start or the last `clear`. */
  n: number;
  method: string;
  /** Includes the query. */
  path: string;
  headers: Record<string, string | string[] | undefined>;
  /** The body as text. */
  raw: string;
};

export class RecordedRequests<R extends RecordedRequest> {
  /** The last 1000, oldest first. */
  recent: R[] = [];
  /** All since the start or the last `clear`. */
  total = 0;
  #counts = new Map<string, number>();
  #waiting = new Set<(request: R) => void>();

  record(request: Omit<R, 'n'>): R {
    this.total += 1;
    const recorded = Object.assign(request, { n: this.total }) as R;
    const key = countKey(recorded.method, recorded.path);
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
    this.recent.push(recorded);
    if (this.recent.length > KEPT) this.recent.shift();
    for (const notify of this.#waiting) notify(recorded);
    return recorded;
  }

  /** The number with this method and path, without the query. */
  count(method: string, path: string): number {
    return this.#counts.get(countKey(method, path)) ?? 0;
  }

  /** The matching ones of the last 1000. */
  where(matches: (request: R) => boolean): R[] {
    return this.recent.filter(matches);
  }

  /** The n-th request, now or as soon as it arrives. */
  nth(n: number, deadline_ms?: number): Promise<R> {
    return this.#first((request) => request.n === n, `request ${n}`, deadline_ms);
  }

  /** The n-th matching request of the last 1000 and future ones. */
  nthWhere(n: number, matches: (request: R) => boolean, deadline_ms?: number): Promise<R> {
    let left = n;
    const isIt = (request: R) => matches(request) && --left === 0;
    return this.#first(isIt, `matching request ${n}`, deadline_ms);
  }

  clear(): void {
    this.recent = [];
    this.total = 0;
    this.#counts.clear();
  }

  async #first(isIt: (request: R) => boolean, what: string, deadline_ms?: number): Promise<R> {
    const there = this.recent.find(isIt);
    if (there !== undefined) return there;
    const found = Promise.withResolvers<R>();
    const look = (request: R) => {
      if (isIt(request)) found.resolve(request);
    };
    this.#waiting.add(look);
    try {
      return await within(found.promise, what, deadline_ms);
    } finally {
      this.#waiting.delete(look);
    }
  }
}

function countKey(method: string, path: string): string {
  return `${method} ${path.split('?', 1)[0]}`;
}

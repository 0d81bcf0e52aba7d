/** The remaining quota of each limit, from RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers). */

export interface Quota {
  policy: string;
  /** The quota of `window_s`; undefined if the policy's field is missing. */
  limit: number | undefined;
  window_s: number | undefined;
  remaining: number;
  /** Seconds until more is available; undefined if the service does not send it. */
  reset_s: number | undefined;
}

export function readQuota(headers: Headers): Quota[] {
  const policies = new Map(itemsOf(headers.get('ratelimit-policy')).map((item) => [item.name, item.numbers]));
  return itemsOf(headers.get('ratelimit')).flatMap(({ name, numbers }) => {
    if (numbers.r === undefined) return [];
    const policy = policies.get(name);
    return { policy: name, limit: policy?.q, window_s: policy?.w, remaining: numbers.r, reset_s: numbers.t };
  });
}

/** A list of strings with whole-numbered parameters: `"burst";r=9;t=6, "generations";r=49`. */
function itemsOf(field: string | null): { name: string; numbers: Record<string, number> }[] {
  return [...(field ?? '').matchAll(/"([^"]*)"((?:\s*;\s*[a-z]+=\d+)*)/g)].map(([, name = '', parameters = '']) => ({
    name,
    numbers: Object.fromEntries([...parameters.matchAll(/([a-z]+)=(\d+)/g)].map(([, key, value]) => [key, Number(value)])),
  }));
}

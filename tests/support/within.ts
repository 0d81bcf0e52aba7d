// Bounds each wait of a test: the promise, or an error that names the missing event.

/** Ten seconds: far more than any step takes, far less than a hung test run. */
export const WAIT_MS = 10_000;

export async function within<T>(promise: Promise<T>, what: string, deadline_ms = WAIT_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${deadline_ms} ms`)), deadline_ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A connection that a stream comes over, and the pauses between two of them. */

/** Waits; `online` ends it early when the browser says that the network is back. Rejects when the signal aborts. */
export type Pause = (ms: number, signal: AbortSignal, wakeUpBy?: 'online') => Promise<void>;

/** The service sends a comment every 15 s: when three are missing, the line is dead. */
const SILENCE_MAX_MS = 45_000;

export interface Line {
  /** Aborts when the line is silent for too long, the browser goes offline, or the caller aborts. */
  signal: AbortSignal;
  /** To be called at every sign of life. */
  alive(): void;
  close(): void;
}

export function openLine(caller: AbortSignal): Line {
  const line = new AbortController();
  const cut = () => line.abort();
  let silence = setTimeout(cut, SILENCE_MAX_MS);
  globalThis.addEventListener?.('offline', cut);
  return {
    signal: AbortSignal.any([caller, line.signal]),
    alive() {
      clearTimeout(silence);
      silence = setTimeout(cut, SILENCE_MAX_MS);
    },
    close() {
      clearTimeout(silence);
      globalThis.removeEventListener?.('offline', cut);
    },
  };
}

export const pause: Pause = (ms, signal, wakeUpBy) => {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const abort = () => reject(signal.reason);
  const wake = () => resolve();
  const timer = setTimeout(wake, ms);
  if (wakeUpBy !== undefined) globalThis.addEventListener?.(wakeUpBy, wake);
  if (signal.aborted) abort();
  else signal.addEventListener('abort', abort, { once: true });
  return promise.finally(() => {
    clearTimeout(timer);
    if (wakeUpBy !== undefined) globalThis.removeEventListener?.(wakeUpBy, wake);
    signal.removeEventListener('abort', abort);
  });
};

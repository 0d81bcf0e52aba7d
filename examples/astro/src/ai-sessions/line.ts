/** The connection of a stream, and the pauses between two connections. */

/** Waits; `online` ends the wait early when the browser is online again. Rejects when the signal aborts. */
export type Pause = (ms: number, signal: AbortSignal, wakeUpBy?: 'online') => Promise<void>;

/** The service sends a comment every 15 s: after three missing ones the connection is lost. */
const SILENCE_MAX_MS = 45_000;

export interface Line {
  /** Aborts when the connection is silent for too long, the browser goes offline, or the caller aborts. */
  signal: AbortSignal;
  /** Call it for every received chunk. */
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

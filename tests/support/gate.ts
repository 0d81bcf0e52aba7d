// A gate that a test opens: whoever waits at it goes on then, and not by the clock.

/** Holds something until the test opens it. */
export type Gate = {
  /** Lets everybody through, now and later. */
  open(): void;
  /** Waits until the gate is open; tells `reached`. */
  pass(): Promise<void>;
  /** Resolves when the first one stands at the gate. */
  reached: Promise<void>;
};

export function createGate(): Gate {
  const opened = Promise.withResolvers<void>();
  const reached = Promise.withResolvers<void>();
  return {
    open: () => opened.resolve(),
    pass: () => {
      reached.resolve();
      return opened.promise;
    },
    reached: reached.promise,
  };
}

// A gate that a test opens: waiting code continues then, and not after a time.

/** Holds callers until the test opens it. */
export type Gate = {
  /** Lets all callers pass, now and later. */
  open(): void;
  /** Waits until the gate is open; resolves `reached`. */
  pass(): Promise<void>;
  /** Resolves when the first caller waits at the gate. */
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

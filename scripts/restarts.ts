/** Restarts a program when it ends, within a limit. */
import { Failure, messageOf } from './steps.ts';

export interface Program {
  /** Settles when it is up; fails when it has ended or takes too long. */
  ready(): Promise<void>;
  /** Settles when it has ended, for whatever reason. */
  ended: Promise<void>;
  stop(): Promise<void>;
}

export interface KeptProgram {
  /** Settles after `stop`; fails with a `Failure` when the program ended more often than the limit allows. */
  finished: Promise<void>;
  stop(): Promise<void>;
}

/** Allows occasional crashes; a program that ends at each start (4 s) is abandoned within half a minute. */
export const RESTARTS_MAX = 5;
export const RESTARTS_WINDOW_MS = 60_000;

/** Keeps a program running: `first` runs already, `launch` starts another; `log` receives a line for each restart, `now` is in milliseconds. */
export function keepRunning(name: string, first: Program, launch: () => Promise<Program>, log: (line: string) => void, now: () => number = () => performance.now()): KeptProgram {
  let current = first;
  let stopping = false;
  const finished = supervise();
  // The caller that waits for it receives the failure; until then the rejection must not count as unhandled.
  finished.catch(() => {});

  async function supervise(): Promise<void> {
    let restarts: number[] = [];
    for (;;) {
      await current.ended;
      if (stopping) return;
      const ended_ms = now();
      restarts = restarts.filter((restart_ms) => ended_ms - restart_ms < RESTARTS_WINDOW_MS);
      if (restarts.length >= RESTARTS_MAX) {
        throw new Failure(`${name} ended ${RESTARTS_MAX + 1} times within ${RESTARTS_WINDOW_MS / 1000} s and is not started again: see its messages above.`);
      }
      restarts.push(ended_ms);
      log(`${name} has ended: it is started again (${restarts.length} of at most ${RESTARTS_MAX} restarts within ${RESTARTS_WINDOW_MS / 1000} s).`);
      await restart();
    }
  }

  async function restart(): Promise<void> {
    current = await launch();
    if (stopping) return current.stop();
    const started = current;
    await started.ready().then(
      () => log(`${name} is up again.`),
      async (error: unknown) => {
        if (!stopping) log(messageOf(error));
        await started.stop();
      },
    );
  }

  return {
    finished,
    async stop() {
      stopping = true;
      await current.stop();
      // A restart in progress reads `stopping` and stops what it has launched.
      await finished.catch(() => {});
    },
  };
}

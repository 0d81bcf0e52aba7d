/** Adds up the results of the test runners for the last line of `npm test`. */

export interface Counts {
  passed: number;
  failed: number;
}

export const none: Counts = { passed: 0, failed: 0 };

export const add = (a: Counts, b: Counts): Counts => ({ passed: a.passed + b.passed, failed: a.failed + b.failed });

/** Counts a failure for a runner that ran nothing, or that failed without a failed test. */
export function judge(counts: Counts, endedWell: boolean): Counts {
  const ranNothing = counts.passed + counts.failed === 0;
  return ranNothing || (!endedWell && counts.failed === 0) ? { ...counts, failed: counts.failed + 1 } : counts;
}

/** Adds up the lines `test result: ok. 12 passed; 0 failed; …` that each test binary of `cargo test` ends with. */
export function countsOfCargo(output: string): Counts {
  return [...output.matchAll(/^test result: .*?(\d+) passed; (\d+) failed;/gm)]
    .map(([, passed, failed]) => ({ passed: Number(passed), failed: Number(failed) }))
    .reduce(add, none);
}

/** The output of the scripts: timed steps, and failures that say in one sentence what to do. */

/** A failure whose message is the only sentence that the reader needs; program output was shown before it. */
export class Failure extends Error {}

/** Runs `work`, prints its name meanwhile and its duration afterwards. */
export async function step<T>(title: string, work: () => Promise<T>): Promise<T> {
  console.log(`… ${title}`);
  const start = performance.now();
  try {
    const result = await work();
    console.log(`✓ ${title} (${seconds(start)})`);
    return result;
  } catch (error) {
    console.log(`✗ ${title} (${seconds(start)})`);
    throw error;
  }
}

/** Runs a script's main function; ends non-zero when it fails, with one sentence if the failure was foreseen. */
export async function runScript(main: () => Promise<void>): Promise<void> {
  try {
    await main();
  } catch (error) {
    console.error(error instanceof Failure ? error.message : error);
    process.exitCode = 1;
  }
}

/** Text for a failure that is shown without ending the script. */
export const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

const seconds = (start: number) => `${((performance.now() - start) / 1000).toFixed(1)} s`;

/** How the scripts start wrangler, Cloudflare's own tool. */
import { npmPackage } from './paths.ts';
import { type Ended, type RunOptions, run } from './run_program.ts';

/** To be run by Node; the project's own, because wrangler wants a newer one than many machines have. */
export const wranglerProgram = npmPackage('wrangler', 'bin/wrangler.js');

/** It tells nobody what is done here, and writes no log files into the home folder. */
export const quietWrangler = {
  WRANGLER_SEND_METRICS: 'false',
  WRANGLER_SEND_ERROR_REPORTS: 'false',
  WRANGLER_HIDE_BANNER: 'true',
  WRANGLER_WRITE_LOGS: 'false',
};

/** One command to its end. It has no terminal to ask in, so it never waits for an answer. */
export function wrangler(args: string[], options: RunOptions = {}): Promise<Ended> {
  return run(process.execPath, [wranglerProgram, ...args], { ...options, env: { ...quietWrangler, ...options.env } });
}

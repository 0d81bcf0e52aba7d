/** How the scripts start wrangler, Cloudflare's own tool. */
import { npmPackage } from './paths.ts';
import { type Ended, type RunOptions, run } from './run_program.ts';

/** Run with the project's own Node, because wrangler requires a newer one than many machines have. */
export const wranglerProgram = npmPackage('wrangler', 'bin/wrangler.js');

/** Disables wrangler's telemetry and its log files in the home folder. */
export const quietWrangler = {
  WRANGLER_SEND_METRICS: 'false',
  WRANGLER_SEND_ERROR_REPORTS: 'false',
  WRANGLER_HIDE_BANNER: 'true',
  WRANGLER_WRITE_LOGS: 'false',
};

/** Runs one command to its end, without a terminal, so that it never waits for input. */
export function wrangler(args: string[], options: RunOptions = {}): Promise<Ended> {
  return run(process.execPath, [wranglerProgram, ...args], { ...options, env: { ...quietWrangler, ...options.env } });
}

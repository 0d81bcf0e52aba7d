/** Starts a program, waits for its end and keeps its output. */
import { spawn } from 'node:child_process';
import { programEnvironment, root } from './paths.ts';
import { Failure } from './steps.ts';

export interface Ended {
  ok: boolean;
  /** Its stdout and stderr, interleaved. */
  output: string;
  /** Its stdout alone, for parsing. */
  stdout: string;
}

export interface RunOptions {
  /** The folder to run in; default: the project's. */
  cwd?: string;
  env?: Record<string, string>;
  /** `live` shows the output as it arrives; without it the output is only kept, to be shown after a failure. */
  show?: 'live';
  /** The message for a missing program. */
  ifMissing?: string;
}

export const RUST_IS_MISSING =
  'Rust is missing: install rustup as https://rustup.rs says, open a new shell and run the command again.';

export function run(program: string, args: string[], options: RunOptions = {}): Promise<Ended> {
  const { promise, resolve, reject } = Promise.withResolvers<Ended>();
  const child = spawn(program, args, {
    cwd: options.cwd ?? root,
    env: programEnvironment(options.env),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const chunks: Buffer[] = [];
  const stdout: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    stdout.push(chunk);
    if (options.show === 'live') process.stdout.write(chunk);
  });
  child.stderr.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    if (options.show === 'live') process.stderr.write(chunk);
  });
  const stop = () => child.kill();
  process.once('exit', stop);
  child.on('error', (error: NodeJS.ErrnoException) => {
    const missing = options.ifMissing ?? `${program} is missing: install it and run the command again.`;
    reject(error.code === 'ENOENT' ? new Failure(missing) : error);
  });
  child.on('close', (code) => {
    process.off('exit', stop);
    resolve({ ok: code === 0, output: Buffer.concat(chunks).toString(), stdout: Buffer.concat(stdout).toString() });
  });
  return promise;
}

/** Runs Rust's programs; their output passes through a pipe, so a flag sets whether it is for a terminal. */
export function runRust(program: 'cargo' | 'rustc' | 'rustup', args: string[], options: RunOptions = {}): Promise<Ended> {
  const env = { ...(process.stdout.isTTY ? { CARGO_TERM_COLOR: 'always' } : { TERM: 'dumb' }), ...options.env };
  return run(program, args, { ...options, env, ifMissing: RUST_IS_MISSING });
}

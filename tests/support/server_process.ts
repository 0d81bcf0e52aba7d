// A server in a child process: its last output for error messages, and its end.

import type { ChildProcess } from 'node:child_process';
import { within } from './within.ts';

const KEPT_OUTPUT_CHARS = 8_000;

/** Fails if the child exits before `ready` resolves; the error contains the child's last output. */
export async function untilReady(child: ChildProcess, name: string, ready: Promise<void>): Promise<void> {
  let output = '';
  const keep = (bytes: Buffer) => {
    output = (output + bytes.toString('utf8')).slice(-KEPT_OUTPUT_CHARS);
  };
  child.stdout?.on('data', keep);
  child.stderr?.on('data', keep);
  const exited = new Promise<never>((_, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => reject(new Error(`${name} ended (${code ?? signal}): ${output}`)));
  });
  try {
    await within(Promise.race([ready, exited]), `${name} did not start`, 30_000);
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  } finally {
    child.stdout?.off('data', keep);
    child.stderr?.off('data', keep);
    // Read the pipes: a full pipe would block the child.
    child.stdout?.resume();
    child.stderr?.resume();
    exited.catch(() => {});
  }
}

/** Resolves when the child has exited. */
export function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => child.once('exit', () => resolve()));
}

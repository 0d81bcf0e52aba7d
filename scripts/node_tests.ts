/** Runs test files with Node's own runner, each in its own process, and counts the results. */
import { relative } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { root } from './paths.ts';
import { type Counts, judge } from './test_counts.ts';

/** A file that hangs fails: the slowest needs half of this. */
const fileDeadlineMs = 10 * 60_000;

/** Runs the files, so many at once; `write` receives the report. */
export async function runNodeTests(files: string[], atOnce: number, write: (text: string) => void): Promise<Counts> {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  if (files.length === 0) {
    console.error('There is no test file to run, which counts as a failure.');
    return judge(counts, true);
  }
  let endedWell = true;
  const tests = run({ files, concurrency: atOnce, timeout: fileDeadlineMs, cwd: root });
  tests.on('test:pass', ({ name, file, details, skip, todo }) => {
    if (details.type === 'suite') return;
    // A file without a test is reported as one that passed, under the file's own name.
    if (name === file) {
      counts.failed += 1;
      console.error(`${relative(root, file)} ran no test, which counts as a failure.`);
    } else if (skip || todo) counts.skipped += 1;
    else counts.passed += 1;
  });
  tests.on('test:fail', ({ details }) => {
    if (details.type !== 'suite') counts.failed += 1;
  });
  tests.on('test:summary', ({ success }) => (endedWell &&= success));
  for await (const text of tests.compose(spec)) write(String(text));
  if (counts.skipped > 0) write(`${counts.skipped} skipped\n`);
  return judge(counts, endedWell);
}

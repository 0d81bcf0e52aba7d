/** Runs test files with Node's own runner, each in its own process, and counts the results. */
import { once } from 'node:events';
import { relative } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { root } from './paths.ts';
import { type Counts, judge } from './test_counts.ts';

/** CI has two cores, and each file may start a database of its own. */
const filesAtOnce = 2;

/** A file that hangs fails: the slowest needs a small part of this. */
const fileDeadlineMs = 10 * 60_000;

export async function runNodeTests(files: string[]): Promise<Counts> {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  if (files.length === 0) {
    console.error('There is no test file to run, which counts as a failure.');
    return judge(counts, true);
  }
  let endedWell = true;
  const tests = run({ files, concurrency: filesAtOnce, timeout: fileDeadlineMs, cwd: root });
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
  const report = tests.compose(spec);
  report.pipe(process.stdout, { end: false });
  await once(report, 'end');
  if (counts.skipped > 0) console.log(`${counts.skipped} skipped`);
  return judge(counts, endedWell);
}

// The list of a host's exceptions: a listed test must exist and must fail.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { describe, it } from 'node:test';
import type { Exception } from '../hosts/listed_exceptions.ts';

const listed = (test: string, file = 'tests.ts'): Exception => ({ file, test, reason: 'a row' });

/** Runs the two tests of the fixture with that list. */
function run(exceptions: Exception[]): Promise<{ ok: boolean; output: string }> {
  const module = new URL('../hosts/listed_exceptions.ts', import.meta.url);
  const folder = new URL('../fixtures/service_tests/', import.meta.url);
  const code = `import { serviceTests } from ${JSON.stringify(module)};
    await serviceTests(() => {}, ${JSON.stringify(exceptions)}, undefined, new URL(${JSON.stringify(folder)}));`;
  // A runner inside a runner would report to the outer one.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  return new Promise((resolve) => {
    execFile(process.execPath, ['--disable-warning=ExperimentalWarning', '--input-type=module', '--eval', code], { env }, (error, stdout, stderr) => {
      resolve({ ok: error === null, output: stdout + stderr });
    });
  });
}

describe('a list of exceptions', () => {
  it('a listed test that fails is expected, and is printed with its reason', async () => {
    const { ok, output } = await run([listed('a suite > fails')]);
    assert.ok(ok, output);
    assert.match(output, /expected to fail: tests\.ts: a suite > fails \(a row\)/);
  });

  for (const [name, exceptions, message] of [
    ['a test that fails fails the run if it is not listed', [], /as it should/],
    ['a listed test that passes fails the run', [listed('a suite > fails'), listed('a suite > passes')], /expected to fail but passed/],
    ['a listed name that no test has fails the run', [listed('a suite > fails'), listed('fails')], /each exception is a test/],
    ['a listed file that does not exist fails the run', [listed('a suite > fails'), listed('a suite > fails', 'other.ts')], /each exception is a test/],
    ['a test that is listed twice fails the run', [listed('a suite > fails'), listed('a suite > fails')], /each exception is a test/],
  ] as const) {
    it(name, async () => {
      const { ok, output } = await run([...exceptions]);
      assert.equal(ok, false);
      assert.match(output, message);
    });
  }
});

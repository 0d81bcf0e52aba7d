// The hosts of `npm run dev`.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { it } from 'node:test';
import { programEnvironment, root } from '../../scripts/paths.ts';

/** Runs `npm run dev` with the arguments after its first `--`, until it ends with an error. */
function dev(...args: string[]): Promise<{ code: unknown; stderr: string }> {
  return new Promise((resolve) => {
    execFile('npm', ['run', '--silent', 'dev', '--', ...args], { cwd: root, env: programEnvironment() }, (error, _, stderr) => {
      resolve({ code: error?.code, stderr });
    });
  });
}

const refused = { code: 1, stderr: 'There is no host "nowhere": take one of cloudflare, supabase.\n' };

it('an unknown host is refused with the names of all', async () => {
  assert.deepEqual(await dev('--host', 'nowhere'), refused);
});

// All arguments are read before the host is looked up.
for (const args of [['--host', 'nowhere', '--', '--once'], ['--once', '--', '--host', 'nowhere'], ['--', '--host', 'nowhere', '--once']]) {
  it(`another -- is ignored in npm run dev -- ${args.join(' ')}`, async () => {
    assert.deepEqual(await dev(...args), refused);
  });
}

it('an unknown option is refused', async () => {
  const { code, stderr } = await dev('--host', 'nowhere', '--', '--twice');
  assert.deepEqual([code, stderr.includes('--twice')], [1, true]);
});

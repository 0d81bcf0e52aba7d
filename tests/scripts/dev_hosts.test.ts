// The hosts of `npm run dev`.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { it } from 'node:test';
import { root } from '../../scripts/paths.ts';

/** Runs `npm run dev` until it ends with an error. */
function dev(...args: string[]): Promise<{ code: unknown; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, ['--disable-warning=ExperimentalWarning', join(root, 'scripts/dev.ts'), ...args], (error, _, stderr) => {
      resolve({ code: error?.code, stderr });
    });
  });
}

it('an unknown host is refused with the names of all', async () => {
  assert.deepEqual(await dev('--once', '--', '--host', 'nowhere'), { code: 1, stderr: 'There is no host "nowhere": take one of cloudflare, supabase.\n' });
});

// wrangler.toml, read by wrangler: a key that it does not know is a warning, and would be without effect.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const root = fileURLToPath(new URL('../../', import.meta.url));
const settings = join(root, 'wrangler.toml');

/** What wrangler prints for a deployment that it only prepares. */
async function plan(config: string): Promise<string> {
  const out = await mkdtemp(join(tmpdir(), 'ai-sessions-plan-'));
  const wrangler = join(root, 'node_modules/wrangler/bin/wrangler.js');
  const env = { ...process.env, WRANGLER_SEND_METRICS: 'false', WRANGLER_LOG_PATH: out, CI: '1' };
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [wrangler, 'deploy', '--dry-run', '--outdir', out, '--config', config], { cwd: root, env });
  await rm(out, { recursive: true });
  return stdout + stderr;
}

it('wrangler knows every key of wrangler.toml', async () => {
  const printed = await plan(settings);
  assert.match(printed, /USER_SESSIONS/);
  assert.doesNotMatch(printed, /Unexpected fields/);
});

it('traces are on', async () => {
  const text = await readFile(settings, 'utf8');
  assert.match(text, /^\[observability\]\nenabled = true$/m);
  assert.match(text, /^\[observability\.traces\]\nenabled = true$/m);
});

// The commands of wrangler in operations/runbook.md: each command and each flag exists in the installed version.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { root } from '../../scripts/paths.ts';
import { wrangler } from '../../scripts/wrangler.ts';

const runbook = await readFile(join(root, 'operations/runbook.md'), 'utf8');

/** The flags that the runbook gives to each command, by the command. */
const commands = new Map<string, Set<string>>();
for (const [, line = ''] of runbook.matchAll(/npx wrangler ([^\n`]+)/g)) {
  const command = /^[a-z]+( (list|put|delete)\b)?/.exec(line)?.[0] ?? line;
  const flags = commands.get(command) ?? new Set();
  for (const [flag] of line.matchAll(/--[a-z-]+/g)) flags.add(flag);
  commands.set(command, flags);
}

it('the runbook has the commands to look, to set and to roll back', () => {
  assert.deepEqual([...commands.keys()].sort(), ['deployments list', 'rollback', 'secret delete', 'secret list', 'secret put', 'tail']);
});

for (const [command, flags] of commands) {
  it(`wrangler ${command} exists with the flags of the runbook`, async () => {
    const { ok, output } = await wrangler([...command.split(' '), '--help']);
    assert.ok(ok, output);
    assert.ok(output.includes(`wrangler ${command}`), output);
    for (const flag of flags) assert.ok(output.includes(flag), `${flag}\n${output}`);
  });
}

// The rotation of secrets, as operations/runbook.md describes it: which requests are refused (none), and what else changes. The
// signing keys: tests/service/signing_keys.ts.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { root } from '../../scripts/paths.ts';
import { run } from '../../scripts/run_program.ts';
import { create, eventually, sendRequest, signIn, started } from '../service/service.ts';
import { startOnWorkerd, type WorkerdService } from './workerd.ts';

const NEW_KEY = `sk-or-v1-new-${'b'.repeat(40)}`;

/** Runs a script of the runbook, which contains this text. */
async function runbookScript(part: string, env: Record<string, string>, ...args: string[]): Promise<string> {
  const scripts = [...(await readFile(join(root, 'operations/runbook.md'), 'utf8')).matchAll(/node -e '([^']+)'/g)].map(([, script = '']) => script);
  const script = scripts.find((script) => script.includes(part));
  assert.ok(script, part);
  const { ok, stdout, output } = await run(process.execPath, ['-e', script, ...args], { env });
  assert.ok(ok, output);
  return stdout.trim();
}

const withKey = (key: string) => ({ 'idempotency-key': `"${key}"` });

describe('a new API key', () => {
  const service = started(startOnWorkerd) as () => WorkerdService;

  it('no request is refused and no pseudonym changes', async () => {
    const { openrouter } = service().world;
    const user = await signIn(service());
    const first = await create(service(), user.token, undefined, withKey('first'));
    assert.equal(first.status, 201, first.text);

    // Step 1: keep the derived secret. Step 2: a second key. Step 3: it replaces the first one here.
    const oldKey = openrouter.key;
    const secret = await runbookScript('service-secret', { OPENROUTER_API_KEY: `${oldKey}\n` });
    openrouter.addKey(NEW_KEY);
    for (const changed of [{ SERVICE_SECRET: secret }, { OPENROUTER_API_KEY: NEW_KEY }]) {
      await service().restart(changed);
      const created = await create(service(), user.token);
      assert.equal(created.status, 201, created.text);
    }
    // Step 4: the old key is deleted.
    openrouter.removeKey(oldKey);
    const last = await create(service(), user.token);
    assert.equal(last.status, 201, last.text);
    const ready = await sendRequest(service(), 'GET', '/health/ready');
    assert.equal(ready.status, 200, ready.text);

    const requests = openrouter.requests.recent;
    assert.deepEqual(requests.map(({ headers }) => headers['authorization']), [oldKey, oldKey, NEW_KEY, NEW_KEY].map((key) => `Bearer ${key}`));
    const pseudonym = await runbookScript('pseudonym', { SERVICE_SECRET: secret }, user.id);
    assert.deepEqual(requests.map(({ body }) => (body as { user: string }).user), Array.from({ length: 4 }, () => pseudonym));
    await eventually('the log has the pseudonym', () => service().logs.find((line) => line.includes(`"user":"${pseudonym}"`)));

    // A repeated request still returns its session.
    const repeated = await create(service(), user.token, undefined, withKey('first'));
    assert.deepEqual([repeated.status, repeated.body.id, openrouter.requests.total], [201, first.body.id, 4]);
  });
});

describe('a new secret', () => {
  const service = started(startOnWorkerd, { SERVICE_SECRET: 'a'.repeat(32) }) as () => WorkerdService;

  it('no request is refused and keys in use keep their session', async () => {
    const { openrouter } = service().world;
    const user = await signIn(service());
    const first = await create(service(), user.token, undefined, withKey('first'));
    await service().restart({ SERVICE_SECRET: 'b'.repeat(32) });
    const repeated = await create(service(), user.token, undefined, withKey('first'));
    assert.deepEqual([repeated.status, repeated.body.id, openrouter.requests.total], [201, first.body.id, 1]);
    const second = await create(service(), user.token);
    assert.equal(second.status, 201, second.text);
    const [before, after] = openrouter.requests.recent.map(({ body }) => (body as { user: string }).user);
    assert.notEqual(before, after, 'the pseudonym changes');
  });
});

// An idle object empties its storage when its alarm fires. Observed from outside: the SQLite files in workerd's folder.

import assert from 'node:assert/strict';
import { cp, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { create, eventually, remaining, signIn } from '../service/service.ts';
import { startOnWorkerd, type WorkerdService } from './workerd.ts';

const WINDOW_MS = 2_000;

let service: WorkerdService;
before(async () => {
  service = await startOnWorkerd({ RATE_LIMIT_BURST: '3/2', RATE_LIMIT_GENERATIONS: '3/2', RATE_LIMIT_ATTEMPTS: '9/2' });
});
after(() => service.close());

/**
 * The tables of all objects, without the platform's own. Read from a copy, because a lock would block workerd. A copy taken
 * in the middle of a write cannot be read: undefined.
 */
async function tables(): Promise<string[] | undefined> {
  const copy = await mkdtemp(join(tmpdir(), 'ai-sessions-copy-'));
  try {
    await cp(service.storage, copy, { recursive: true });
    const files = await readdir(copy, { recursive: true });
    // `metadata.sqlite` is workerd's own list of alarms.
    const objects = files.filter((file) => file.endsWith('.sqlite') && !file.endsWith('metadata.sqlite'));
    return objects.flatMap((file) => tablesIn(join(copy, file)));
  } catch {
    return undefined;
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
}

function tablesIn(file: string): string[] {
  const object = new DatabaseSync(file);
  try {
    const names = object.prepare("select name from sqlite_master where type = 'table'").all().map(({ name }) => String(name));
    return names.filter((name) => !name.startsWith('_cf_'));
  } finally {
    object.close();
  }
}

const kept = () => eventually('the storage has tables', async () => {
  const names = await tables();
  return names !== undefined && names.length > 0 ? names.sort() : undefined;
});

const emptied = (deadline_ms: number) =>
  eventually('the storage is empty', async () => ((await tables())?.length === 0 ? true : undefined), deadline_ms);

it('an object whose windows have passed has an empty storage', async () => {
  const user = await signIn(service);
  assert.equal((await create(service, user.token, '{')).status, 400);
  assert.deepEqual(await kept(), ['candidates', 'claims', 'generations', 'ledger']);
  // The alarm fires within this window, and has to be set again.
  await pause(WINDOW_MS / 2);
  assert.deepEqual(remaining(await create(service, user.token, '{')), { burst: 1, generations: 3 });
  await emptied(2 * WINDOW_MS);
  assert.deepEqual(remaining(await create(service, user.token, '{')), { burst: 2, generations: 3 });
});

it('an object that has generated has an empty storage later', async () => {
  const user = await signIn(service);
  const created = await create(service, user.token);
  assert.equal(created.status, 201, created.text);
  await kept();
  // HEARTBEAT_MS: the alarm may still be the one that was set in case of a crash.
  await emptied(10_000 + 2 * WINDOW_MS);
  assert.equal((await create(service, user.token)).status, 201);
});

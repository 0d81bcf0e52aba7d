// The promises of the world, on which all other tests depend.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { createClient } from '@supabase/supabase-js';
import { startWorld, type World } from './world.ts';

describe('the local world', () => {
  let world: World;
  before(async () => {
    world = await startWorld();
  });
  after(() => world.close());

  const client = (of: World = world) =>
    createClient(of.supabaseUrl, of.anonKey, { auth: { persistSession: false, autoRefreshToken: false } });

  it('supabase-js signs in, and the token is valid in the database', async () => {
    const user = await world.auth.createUser();
    const supabase = client();
    const { data, error } = await supabase.auth.signInWithPassword({ email: user.email ?? '', password: user.password ?? '' });
    assert.equal(error, null);
    assert.equal(data.user?.id, user.id);

    const session = { id: crypto.randomUUID(), model: 'm', input_text: 'x'.repeat(1000) };
    assert.equal((await supabase.from('ai_generation_sessions').insert(session)).error, null);
    const rows = await supabase.from('ai_generation_sessions').select('id, user_id');
    assert.deepEqual(rows.data, [{ id: session.id, user_id: user.id }]);
  });

  it('supabase-js signs up, refreshes, reads the user and signs out', async () => {
    const supabase = client();
    const email = 'New.Person@example.test';
    const signedUp = await supabase.auth.signUp({ email, password: 'correct horse' });
    assert.equal(signedUp.error, null);
    const refreshed = await supabase.auth.refreshSession();
    assert.equal(refreshed.error, null);
    assert.notEqual(refreshed.data.session?.refresh_token, signedUp.data.session?.refresh_token);
    assert.equal((await supabase.auth.getUser()).data.user?.email, email.toLowerCase());
    assert.equal((await supabase.auth.signOut()).error, null);
    assert.equal((await supabase.auth.signUp({ email, password: 'correct horse' })).error?.code, 'user_already_exists');
  });

  it('a wrong password is refused with the message of Supabase', async () => {
    const user = await world.auth.createUser();
    const { error } = await client().auth.signInWithPassword({ email: user.email ?? '', password: 'wrong' });
    assert.equal(error?.code, 'invalid_credentials');
    assert.equal(error?.status, 400);
  });

  it('an anonymous sign-in is marked in the token', async () => {
    const { data, error } = await client().auth.signInAnonymously();
    assert.equal(error, null);
    const claims = JSON.parse(Buffer.from(data.session?.access_token.split('.')[1] ?? '', 'base64url').toString());
    assert.equal(claims.is_anonymous, true);
    assert.equal(claims.role, 'authenticated');
  });

  it('each response of a stand-in names it as one', async () => {
    const jwks = await fetch(`${world.supabaseUrl}/auth/v1/.well-known/jwks.json`);
    assert.equal(jwks.headers.get('x-stand-in'), 'ai-sessions local sign-in');
    assert.equal(jwks.headers.get('cache-control'), 'public, max-age=600');
    const models = await fetch(`${world.openrouter.url}/models`);
    assert.equal(models.headers.get('x-stand-in'), 'ai-sessions local model');
  });

  it('the database accepts all kinds of tokens and no forged one', async () => {
    const user = await world.auth.createUser();
    for (const alg of ['ES256', 'RS256', 'HS256'] as const) {
      const answer = await world.rest(world.auth.token(user, { alg }))('GET', '/ai_generation_sessions');
      assert.equal(answer.status, 200, alg);
    }
    const expired = world.auth.token(user, { expires_in_s: -60 });
    assert.equal((await world.rest(expired)('GET', '/ai_generation_sessions')).status, 401);
    const genuine = world.auth.token(user);
    const changed = genuine.slice(0, -10) + genuine.slice(-10).split('').toReversed().join('');
    assert.equal((await world.rest(changed)('GET', '/ai_generation_sessions')).status, 401);
  });

  it('a rotated key is valid at once, the old one until it is retired', async () => {
    const user = await world.auth.createUser();
    const status = async (token: string) => (await world.rest(token)('GET', '/event_logs')).status;
    const old = world.auth.token(user);
    const oldKid = world.auth.current.kid;
    for (const alg of ['RS256', 'ES256'] as const) {
      const kid = await world.auth.rotate(alg);
      assert.equal(world.auth.current.kid, kid);
      assert.equal(await status(world.auth.token(user)), 200);
      assert.equal(await status(old), 200);
    }
    await world.auth.retire(oldKid);
    assert.equal(await status(old), 401);
    assert.equal(await status(world.auth.token(user)), 200);
    const published = (await (await fetch(`${world.supabaseUrl}/auth/v1/.well-known/jwks.json`)).json()) as object;
    assert.deepEqual(published, JSON.parse(JSON.stringify(world.auth.jwks)));
    assert.doesNotMatch(JSON.stringify(published), /"(d|p|q|dp|dq|qi|k)":|oct/);
  });

  it('two worlds share nothing', async () => {
    const other = await startWorld();
    try {
      const user = await other.auth.createUser();
      assert.notEqual(other.supabaseUrl, world.supabaseUrl);
      assert.equal((await world.sql('select 1 from auth.users where id = $1', [user.id])).length, 0);
      const token = other.auth.token(user);
      assert.equal((await other.rest(token)('GET', '/event_logs')).status, 200);
      const foreign = await fetch(`${world.supabaseUrl}/rest/v1/event_logs`, {
        headers: { apikey: world.anonKey, authorization: `Bearer ${token}` },
      });
      assert.equal(foreign.status, 401);
      await foreign.body?.cancel();
    } finally {
      await other.close();
    }
  });

  it('a closed world leaves no port, process or folder', async () => {
    const lines: string[] = [];
    const short = await startWorld({ log: (line) => lines.push(line) });
    const folder = new URL(short.databaseUrl).searchParams.get('host') ?? '';
    assert.ok(existsSync(folder));
    for (const pid of short.pids) assert.ok(isAlive(pid));
    await Promise.all([short.close(), short.close()]);

    for (const url of [short.supabaseUrl, short.openrouter.url]) await listenOn(Number(new URL(url).port));
    for (const pid of short.pids) assert.equal(isAlive(pid), false);
    assert.equal(existsSync(folder), false);
    assert.equal(lines.filter((line) => line.includes('stand-in')).length, 2);
  });

  it('each part of a world can be started alone', async () => {
    const model = await startWorld({ database: false });
    assert.equal((await fetch(`${model.openrouter.url}/models`)).status, 200);
    await model.close();
    const database = await startWorld({ model: false });
    assert.equal(database.openrouter, undefined);
    await database.close();
  });

  const ends: [string, string][] = [
    ['an exception', 'throw new Error("on purpose")'],
    ['process.exit', 'process.exit(3)'],
    ['SIGTERM', 'process.kill(process.pid, "SIGTERM")'],
    ['SIGINT', 'process.kill(process.pid, "SIGINT")'],
  ];
  describe('a process that ends without closing its world', { concurrency: true }, () => {
    for (const [name, end] of ends) {
      it(`a process that ends by ${name} leaves nothing`, async () => {
        const program = `
          import { startWorld } from ${JSON.stringify(new URL('world.ts', import.meta.url).href)};
          const world = await startWorld({ model: false });
          const folder = new URL(world.databaseUrl).searchParams.get('host');
          process.stdout.write(JSON.stringify({ pids: world.pids, folder }), () => setTimeout(() => { ${end} }));`;
        const child = spawn(process.execPath, ['--input-type=module', '--eval', program], { stdio: ['ignore', 'pipe', 'ignore'] });
        let output = '';
        child.stdout.on('data', (bytes) => {
          output += bytes;
        });
        const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
        assert.ok(signal !== null ? signal === name : code !== 0, `ended with ${code ?? signal}`);

        const { pids, folder } = JSON.parse(output) as { pids: number[]; folder: string };
        assert.equal(existsSync(folder), false);
        for (const pid of pids) await untilGone(pid);
      });
    }
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  return !isZombie(pid);
}

/** Exited, but not yet reaped by its new parent; without an init in the container it never is. */
function isZombie(pid: number): boolean {
  try {
    return /\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

/** Polls: only child processes have an event for their end. */
async function untilGone(pid: number): Promise<void> {
  const deadline = Date.now() + 5_000;
  while (isAlive(pid)) {
    assert.ok(Date.now() < deadline, `process ${pid} still runs`);
    await pause(10);
  }
}

/** Expects that the port is free. */
async function listenOn(port: number): Promise<void> {
  const server = createServer().listen(port, '127.0.0.1');
  await once(server, 'listening');
  server.close();
  await once(server, 'close');
}

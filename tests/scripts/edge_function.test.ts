// The Edge Function that `npm run build` completes: `supabase functions deploy flashcards` needs no other file.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { assetsFolder, buildFolder, edgeFunctionFolder, root } from '../../scripts/paths.ts';
import { findDeno } from '../support/deno_program.ts';
import { contract } from '../support/contract.ts';

const config = () => readFile(join(root, 'supabase/config.toml'), 'utf8');

describe('the Edge Function', () => {
  it('the folder has the entry, the module and the static assets', async () => {
    assert.deepEqual((await readdir(edgeFunctionFolder)).sort(), ['ai_sessions.js', 'ai_sessions_bg.wasm', 'docs.html', 'index.ts', 'openapi.json']);
  });

  it('the module is that of Cloudflare, byte for byte', async () => {
    const [edge, cloudflare] = await Promise.all([join(edgeFunctionFolder, 'ai_sessions_bg.wasm'), join(buildFolder, 'index_bg.wasm')].map((file) => readFile(file)));
    assert.ok(edge?.equals(cloudflare ?? Buffer.of()));
  });

  it('the static assets are those of Cloudflare', async () => {
    for (const name of await readdir(assetsFolder)) assert.equal(await readFile(join(edgeFunctionFolder, name), 'utf8'), await readFile(join(assetsFolder, name), 'utf8'), name);
  });

  it('config.toml names the entry and every file that no import names', async () => {
    const files = [...(await config()).matchAll(/"\.\/functions\/flashcards\/([^"]+)"/g)].map(([, name = '']) => name);
    assert.deepEqual(files.sort(), ['ai_sessions_bg.wasm', 'docs.html', 'index.ts', 'openapi.json']);
    assert.match(await config(), /^verify_jwt = false$/m);
    assert.match(await config(), /^policy = "per_worker"$/m);
  });

  it('no route begins with the slug', () => {
    assert.deepEqual(Object.keys(contract['paths']).filter((path) => path.split('/')[1] === 'flashcards'), []);
  });

  it('the entry agrees with the types of Deno', async () => {
    await promisify(execFile)(findDeno(), ['check', '--quiet', '--no-config', '--no-lock', '--no-remote', join(edgeFunctionFolder, 'index.ts')], {
      env: { ...process.env, DENO_DIR: join(root, 'node_modules/.cache/deno-supabase'), DENO_NO_PACKAGE_JSON: '1', NO_COLOR: '1' },
    });
  });
});

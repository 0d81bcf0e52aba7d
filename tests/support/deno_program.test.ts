// Each release of Deno is found on every platform, or the message names the missing program.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { Failure } from '../../scripts/steps.ts';
import { type DenoRelease, findDeno, releases } from './deno_program.ts';

const hasPackage = process.platform === 'linux' && process.arch === 'x64';
const versionOf = async (program: string) => (await promisify(execFile)(program, ['--version'])).stdout.split(' ')[1];

for (const release of Object.keys(releases) as DenoRelease[]) {
  describe(`the Deno program, ${release}`, () => {
    const { variable, version } = releases[release];
    let folder: string;
    let program: string;
    before(async () => {
      folder = await mkdtemp(join(tmpdir(), 'ai-sessions-deno-'));
      program = join(folder, 'deno');
      await writeFile(program, '');
      await chmod(program, 0o755);
    });
    after(() => rm(folder, { recursive: true }));

    for (const [platform, arch] of [['darwin', 'arm64'], ['linux', 'arm64']] as const) {
      it(`the variable precedes the PATH on ${platform} ${arch}`, () => {
        assert.equal(findDeno(release, { platform, arch, env: { PATH: `/nowhere::${folder}` } }), program);
        assert.equal(findDeno(release, { platform, arch, env: { [variable]: program, PATH: '/nowhere' } }), program);
      });

      it(`a missing program is reported with remedies on ${platform} ${arch}`, () => {
        for (const env of [{}, { PATH: '' }, { PATH: '/nowhere', [variable]: '' }]) {
          assert.throws(
            () => findDeno(release, { platform, arch, env }),
            (error) => error instanceof Failure && [platform, arch, 'PATH', variable, version].every((word) => error.message.includes(word)),
          );
        }
      });
    }

    it('a variable that names no program is an error', () => {
      for (const named of [join(folder, 'none'), folder]) {
        assert.throws(() => findDeno(release, { ...process, env: { PATH: folder, [variable]: named } }), (error) => error instanceof Failure && error.message.includes(named));
      }
    });

    it('the npm package precedes the PATH, and has that version', async () => {
      const found = findDeno(release, { platform: process.platform, arch: process.arch, env: { PATH: folder } });
      assert.equal(found === program, !hasPackage);
      if (hasPackage) assert.equal(await versionOf(found), version);
    });
  });
}

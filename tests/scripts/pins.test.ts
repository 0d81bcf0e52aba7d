// All dependencies are pinned by version and hash, in files that the registries' own clients check.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { glob, readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { crates, npmProjects } from '../../scripts/dependencies.ts';
import { programEnvironment, root } from '../../scripts/paths.ts';

type NpmPackage = { name?: string; version?: string; integrity?: string; link?: boolean };

const read = (file: string) => readFile(join(root, file), 'utf8');
const npmPackages = async (folder: string) => {
  const lock = JSON.parse(await read(join(folder, 'package-lock.json'))) as { lockfileVersion: number; packages: Record<string, NpmPackage> };
  const { '': own, ...packages } = lock.packages;
  assert.ok(own !== undefined && Object.keys(packages).length > 0);
  return { ...lock, own, packages };
};
/** A package that is installed under another name has its own name, too. */
const nameOf = (path: string, { name }: NpmPackage) => name ?? path.split('node_modules/').at(-1) ?? '';
/** As package.json writes it. */
const versionOf = ({ name, version }: NpmPackage = {}) => (name === undefined ? version : `npm:${name}@${version}`);

describe('every lock file is in the list', () => {
  const lockFiles = async (name: string) => {
    const ignored = /(^|\/)(node_modules|target|\.tools|\.local|build)(\/|$)/;
    const folders: string[] = [];
    for await (const file of glob(`**/${name}`, { cwd: root, exclude: (path) => ignored.test(path) })) folders.push(dirname(file));
    return folders.sort();
  };
  it('every Cargo.lock is in the list', async () => assert.deepEqual([...crates].sort(), await lockFiles('Cargo.lock')));
  it('every package-lock.json is in the list', async () => assert.deepEqual([...npmProjects].sort(), await lockFiles('package-lock.json')));
});

for (const folder of npmProjects) {
  describe(`${join(folder, 'package-lock.json')}`, () => {
    it('the lock file has a version and a hash of each package, and no address', async () => {
      const { lockfileVersion, packages } = await npmPackages(folder);
      assert.equal(lockfileVersion, 3);
      const unpinned = Object.entries(packages).filter(([, { version, integrity, link }]) => link || !/^\d+\.\d+\.\d+/.test(version ?? '') || !integrity?.startsWith('sha512-'));
      assert.deepEqual(unpinned, []);
      assert.doesNotMatch(await read(join(folder, 'package-lock.json')), /"resolved"/);
    });

    it('the lock file agrees with package.json, which has exact versions', async () => {
      type Kinds = Record<'dependencies' | 'devDependencies' | 'optionalDependencies', Record<string, string> | undefined>;
      const wanted = JSON.parse(await read(join(folder, 'package.json'))) as Kinds;
      const { own, packages } = await npmPackages(folder);
      for (const kind of ['dependencies', 'devDependencies', 'optionalDependencies'] as const) {
        assert.deepEqual((own as Kinds)[kind], wanted[kind], kind);
        for (const [name, version] of Object.entries(wanted[kind] ?? {})) assert.equal(versionOf(packages[`node_modules/${name}`]), version, name);
      }
    });

    it('npm audit checks each package', async () => {
      const { packages } = await npmPackages(folder);
      const { ok, sent } = await audit(folder, {});
      assert.ok(ok);
      const missing = Object.entries(packages).filter(([path, each]) => !sent[nameOf(path, each)]?.includes(each.version ?? ''));
      assert.deepEqual(missing.map(([path]) => path), []);
    });

    it('npm audit fails when a package has an advisory', async () => {
      const { packages } = await npmPackages(folder);
      const name = nameOf(...(Object.entries(packages).at(-1) ?? ['', {}]));
      const advisory = { id: 1, url: 'https://example.test/1', title: 'made up', severity: 'high', vulnerable_versions: '>=0.0.0', cwe: [], cvss: { score: 9 } };
      assert.equal((await audit(folder, { [name]: [advisory] })).ok, false);
    });
  });
}

/** Runs `npm audit` of a lock file against a registry on this machine with these advisories. */
async function audit(folder: string, advisories: object): Promise<{ ok: boolean; sent: Record<string, string[]> }> {
  let sent: Record<string, string[]> = {};
  const registry = createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray());
    if (request.url?.endsWith('/advisories/bulk')) sent = JSON.parse(String(request.headers['content-encoding'] === 'gzip' ? gunzipSync(body) : body)) as typeof sent;
    response.setHeader('content-type', 'application/json').end(JSON.stringify(request.url?.endsWith('/advisories/bulk') ? advisories : {}));
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => registry.once('listening', resolve));
  try {
    const { port } = registry.address() as AddressInfo;
    const args = ['audit', '--package-lock-only', `--registry=http://127.0.0.1:${port}/`, '--audit-level=low'];
    const ok = await promisify(execFile)('npm', args, { cwd: join(root, folder), env: programEnvironment() }).then(
      () => true,
      (error: { code?: number }) => {
        assert.equal(error.code, 1);
        return false;
      },
    );
    return { ok, sent };
  } finally {
    registry.close();
  }
}

describe('a Cargo.lock', () => {
  for (const folder of crates) {
    it(`the Cargo.lock of ${folder} has a checksum of each crate`, async () => {
      const packages = (await read(join(folder, 'Cargo.lock'))).split('[[package]]').slice(1);
      assert.ok(packages.length > 0);
      const named = (text: string) => /^name = "(.+)"$/m.exec(text)?.[1];
      const unpinned = packages.filter((text) => !/^source = "registry\+/m.test(text) || !/^checksum = "[0-9a-f]{64}"$/m.test(text)).map(named);
      // Only the project's own crates have no source.
      const own = ['ai-sessions', 'ai-sessions-fuzz', 'ai-sessions-tools', 'bench-micro', 'bench-upstream'];
      assert.deepEqual(unpinned.filter((name) => !own.includes(name ?? '')), []);
    });
  }

  it('the Cargo.lock of tools has the versions that the crate needs', async () => {
    const [crate, tools] = [await versions('.'), await versions('tools')];
    assert.deepEqual(tools.get('worker-build'), crate.get('worker'));
    assert.deepEqual(tools.get('wasm-bindgen-cli'), crate.get('wasm-bindgen'));
  });

  it('each duplicate that deny.toml permits is in a Cargo.lock', async () => {
    const all = await Promise.all(crates.map(versions));
    const permitted = [...(await read('deny.toml')).matchAll(/crate = "([^"@]+)@([^"]+)", reason = "[^"]{10,}"/g)];
    assert.ok(permitted.length > 0);
    for (const [, name = '', version = ''] of permitted) {
      const isDuplicate = all.some((lock) => (lock.get(name)?.length ?? 0) > 1 && lock.get(name)?.some((each) => each.startsWith(`${version}.`)));
      assert.ok(isDuplicate, `${name}@${version}`);
    }
  });
});

async function versions(folder: string): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  for (const [, name = '', version = ''] of (await read(join(folder, 'Cargo.lock'))).matchAll(/^name = "(.+)"\nversion = "(.+)"$/gm)) found.set(name, [...(found.get(name) ?? []), version]);
  return found;
}

for (const { folder, packages } of [
  { folder: 'tests/api', packages: 20 },
  { folder: 'tests/operations', packages: 1 },
]) {
  describe(`${folder}/requirements.txt`, () => {
    const requirements = async () => (await read(`${folder}/requirements.txt`)).replaceAll('\\\n', ' ').split('\n').filter((line) => line !== '' && !line.startsWith('#'));

    it('requirements.txt pins each package by version and hashes', async () => {
      const lines = await requirements();
      assert.ok(lines.length >= packages);
      const pinned = /^[a-z0-9-]+==[^ ;]+( ; [^-]+)?\s+(--hash=sha256:[0-9a-f]{64}\s*)+$/;
      assert.deepEqual(lines.filter((line) => !pinned.test(line)), []);
    });

    it('requirements.txt pins the program at the version of requirements.in', async () => {
      const wanted = (await read(`${folder}/requirements.in`)).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
      assert.equal(wanted.length, 1);
      assert.ok((await requirements()).some((line) => line.startsWith(`${wanted[0]} `)));
    });
  });
}

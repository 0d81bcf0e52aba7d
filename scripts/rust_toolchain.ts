/** Installs the toolchain of rust-toolchain.toml, its components and its Wasm target. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { root } from './paths.ts';
import { runRust } from './run_program.ts';
import { Failure, step } from './steps.ts';

interface Toolchain {
  channel: string;
  profile: string;
  components: string[];
  targets: string[];
}

/**
 * Quick when it is installed: two calls of rustc. Otherwise rustup receives every part by name, because rustup before 1.28
 * does not read the file by itself, and a machine can have RUSTUP_AUTO_INSTALL=0.
 */
export async function ensureRustToolchain(): Promise<void> {
  const wanted = await readToolchainFile();
  if (await isInstalled(wanted)) return;
  await step(`installing Rust ${wanted.channel} with ${[...wanted.components, ...wanted.targets].join(', ')} (rustup)`, async () => {
    const parts = [
      ...wanted.components.flatMap((name) => ['--component', name]),
      ...wanted.targets.flatMap((name) => ['--target', name]),
    ];
    const args = ['toolchain', 'install', wanted.channel, '--profile', wanted.profile, ...parts, '--no-self-update'];
    const { ok, output } = await runRust('rustup', args);
    if (ok) return;
    process.stderr.write(output);
    throw new Failure(`rustup could not install Rust ${wanted.channel}: see its message above, check the network, and run the command again.`);
  });
}

async function isInstalled(wanted: Toolchain): Promise<boolean> {
  const version = await runRust('rustc', ['--version']);
  if (!version.ok || !version.stdout.startsWith(`rustc ${wanted.channel} `)) return false;
  const sysroot = (await runRust('rustc', ['--print', 'sysroot'])).stdout.trim();
  // rustup's own list, one line like `clippy-x86_64-unknown-linux-gnu` or `rust-std-wasm32-unknown-unknown` each.
  const list = await readFile(join(sysroot, 'lib', 'rustlib', 'components'), 'utf8').catch(() => '');
  return [...wanted.components, ...wanted.targets.map((target) => `rust-std-${target}`)].every((part) =>
    list.split('\n').some((line) => line === part || line.startsWith(`${part}-`)),
  );
}

async function readToolchainFile(): Promise<Toolchain> {
  const text = await readFile(join(root, 'rust-toolchain.toml'), 'utf8');
  const word = (key: string) => new RegExp(`^${key} *= *"([^"]+)"`, 'm').exec(text)?.[1];
  const words = (key: string) =>
    [...(new RegExp(`^${key} *= *\\[([^\\]]*)\\]`, 'm').exec(text)?.[1] ?? '').matchAll(/"([^"]+)"/g)].map(([, name = '']) => name);
  const channel = word('channel');
  if (channel === undefined) throw new Failure('rust-toolchain.toml names no channel: put one there, such as `channel = "1.95.0"`.');
  return { channel, profile: word('profile') ?? 'minimal', components: words('components'), targets: words('targets') };
}

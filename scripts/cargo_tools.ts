/** Makes sure of the two build tools that have no npm package, at the versions that the crate was locked to. */
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { cargoTool, root, toolsFolder } from './paths.ts';
import { run, runRust } from './run_program.ts';
import { Failure, step } from './steps.ts';

export interface CargoTool {
  crate: string;
  program: string;
  version: string;
  /** What is left out of it, because nothing here uses it and it takes long to compile. */
  flags: string[];
}

/**
 * These tools run for a second each, so they are compiled for a quick compilation: two minutes on two cores instead of six.
 * One target folder lets the second share what the first has compiled.
 */
const quickBuild = {
  CARGO_TARGET_DIR: join(toolsFolder, 'target'),
  CARGO_PROFILE_RELEASE_OPT_LEVEL: '0',
  CARGO_PROFILE_RELEASE_CODEGEN_UNITS: '16',
  CARGO_PROFILE_RELEASE_DEBUG: '0',
  CARGO_PROFILE_RELEASE_LTO: 'off',
  // worker-build ships no lock file: never take a version of something below it that this Rust cannot compile.
  CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS: 'fallback',
};

export async function ensureCargoTools(): Promise<CargoTool[]> {
  const tools = await pinnedTools();
  const missing: CargoTool[] = [];
  for (const tool of tools) if (!(await isInstalled(tool))) missing.push(tool);
  for (const tool of missing) await install(tool);
  if (missing.length > 0) await rm(quickBuild.CARGO_TARGET_DIR, { recursive: true, force: true });
  return tools;
}

/** The pins are the crate's own: the tools of wasm-bindgen and of workers-rs are released under their library's version. */
async function pinnedTools(): Promise<CargoTool[]> {
  const lock = await readFile(join(root, 'Cargo.lock'), 'utf8').catch(() => '');
  const locked = (name: string) => {
    const version = new RegExp(`^name = "${name}"\\nversion = "([^"]+)"`, 'm').exec(lock)?.[1];
    if (version === undefined) throw new Failure(`Cargo.lock does not name ${name}: run \`cargo generate-lockfile\` and the command again.`);
    return version;
  };
  return [
    // Its TLS is for a test runner's downloads.
    { crate: 'wasm-bindgen-cli', program: 'wasm-bindgen', version: locked('wasm-bindgen'), flags: ['--no-default-features'] },
    { crate: 'worker-build', program: 'worker-build', version: locked('worker'), flags: [] },
  ];
}

/** The program itself is asked: a record of what was installed once could be wrong. */
async function isInstalled({ program, version }: CargoTool): Promise<boolean> {
  const { ok, stdout } = await run(cargoTool(program), ['--version']).catch(() => ({ ok: false, stdout: '' }));
  return ok && stdout.trim().split(' ').at(-1) === version;
}

async function install({ crate, program, version, flags }: CargoTool): Promise<void> {
  await step(`compiling ${crate} ${version} into .tools/ (cargo install; once; a few minutes)`, async () => {
    const args = ['install', '--locked', '--force', '--root', toolsFolder, '--version', version, '--bin', program, ...flags, crate];
    const { ok, output } = await runRust('cargo', args, { env: quickBuild });
    if (ok) return;
    process.stderr.write(output);
    throw new Failure(whatToDo(crate, output));
  });
}

function whatToDo(crate: string, output: string): string {
  if (/linker `\w+` not found|openssl-sys|pkg-config/.test(output)) {
    return `${crate} needs a C compiler and OpenSSL's headers: install them (Debian, Ubuntu: \`apt install build-essential pkg-config libssl-dev\`) and run the command again.`;
  }
  return `cargo could not install ${crate}: see its message above, check the network, and run the command again.`;
}

/** Installs the tools that have no npm package: those that build the module, and cargo-deny for the linter. */
import { createHash } from 'node:crypto';
import { copyFile, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cargoTool, root, toolsFolder } from './paths.ts';
import { run, runRust } from './run_program.ts';
import { Failure, step } from './steps.ts';

export interface CargoTool {
  crate: string;
  program: string;
  version: string;
}

/** The crate that pins the build tools. */
const manifest = join(root, 'tools/Cargo.toml');
/** The lock file that the build tools were built from; written last, so that a broken build does not count. */
const builtStamp = join(toolsFolder, '.built-from');

const cargoDeny: CargoTool = { crate: 'cargo-deny', program: 'cargo-deny', version: '0.20.2' };

/**
 * These tools run for a second each, so they are compiled for a quick compilation: two minutes on two cores instead of six.
 * The target folder is removed afterwards.
 */
const quickBuild = {
  CARGO_TARGET_DIR: join(toolsFolder, 'target'),
  CARGO_PROFILE_RELEASE_OPT_LEVEL: '0',
  CARGO_PROFILE_RELEASE_CODEGEN_UNITS: '16',
  CARGO_PROFILE_RELEASE_DEBUG: '0',
  CARGO_PROFILE_RELEASE_LTO: 'off',
};

/** The tools that build the module, from the lock file of tools/. */
export async function ensureBuildTools(): Promise<CargoTool[]> {
  const tools = await pinnedTools();
  const stamp = createHash('sha256').update(await readFile(join(root, 'tools/Cargo.lock'))).digest('hex');
  const built = (await readFile(builtStamp, 'utf8').catch(() => '')) === stamp;
  if (built && (await Promise.all(tools.map(isInstalled))).every((is) => is)) return tools;
  const names = tools.map(({ crate, version }) => `${crate} ${version}`).join(' and ');
  await step(`compiling ${names} into .tools/ (cargo build; once; a few minutes)`, async () => {
    await rm(builtStamp, { force: true });
    const chosen = tools.flatMap(({ crate, program }) => ['--package', crate, '--bin', program]);
    const args = ['build', '--locked', '--release', '--manifest-path', manifest, '--message-format=json-render-diagnostics', ...chosen];
    const { ok, output, stdout } = await runRust('cargo', args, { env: quickBuild });
    if (!ok) {
      process.stderr.write(output);
      throw new Failure(whatToDo(names, output));
    }
    for (const { program } of tools) await install(program, stdout);
    await writeFile(builtStamp, stamp);
    await removeTarget();
  });
  return tools;
}

/** The linter of dependencies; it ships a lock file. */
export async function ensureCargoDeny(): Promise<string> {
  const { crate, program, version } = cargoDeny;
  if (!(await isInstalled(cargoDeny))) {
    await step(`compiling ${crate} ${version} into .tools/ (cargo install; once; a minute)`, async () => {
      const args = ['install', '--locked', '--force', '--root', toolsFolder, '--version', `=${version}`, crate];
      const { ok, output } = await runRust('cargo', args, { env: quickBuild });
      if (!ok) {
        process.stderr.write(output);
        throw new Failure(whatToDo(crate, output));
      }
      await removeTarget();
    });
  }
  return cargoTool(program);
}

/** The pins are the crate's own: the tools of wasm-bindgen and of workers-rs are released under their library's version. */
async function pinnedTools(): Promise<CargoTool[]> {
  const tools = [
    { crate: 'wasm-bindgen-cli', program: 'wasm-bindgen', version: await locked('Cargo.lock', 'wasm-bindgen') },
    { crate: 'worker-build', program: 'worker-build', version: await locked('Cargo.lock', 'worker') },
  ];
  for (const { crate, version } of tools) {
    const pinned = await locked('tools/Cargo.lock', crate);
    if (pinned === version) continue;
    throw new Failure(`tools/Cargo.lock has ${crate} ${pinned}, and Cargo.lock needs ${version}: write ${version} into tools/Cargo.toml, run \`cargo update --manifest-path tools/Cargo.toml ${crate}\` and the command again.`);
  }
  return tools;
}

async function locked(lockFile: string, crate: string): Promise<string> {
  const lock = await readFile(join(root, lockFile), 'utf8').catch(() => '');
  const version = new RegExp(`^name = "${crate}"\\r?\\nversion = "([^"]+)"`, 'm').exec(lock)?.[1];
  if (version === undefined) throw new Failure(`${lockFile} does not name ${crate}: run \`git checkout ${lockFile}\` and the command again.`);
  return version;
}

/** Runs the program itself: a record of the installation could be wrong. */
async function isInstalled({ program, version }: CargoTool): Promise<boolean> {
  const { ok, stdout } = await run(cargoTool(program), ['--version']).catch(() => ({ ok: false, stdout: '' }));
  return ok && stdout.trim().split(' ').at(-1) === version;
}

/** Copies a built program into .tools/, with a rename, because another command may be running the old one. */
async function install(program: string, messages: string): Promise<void> {
  const artifacts = messages.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as { target?: { name: string }; executable?: string | null });
  const built = artifacts.find(({ target, executable }) => target?.name === program && typeof executable === 'string')?.executable;
  if (typeof built !== 'string') throw new Failure(`cargo has not built ${program}: run the command again, and report it if that does not help.`);
  await mkdir(join(toolsFolder, 'bin'), { recursive: true });
  const fresh = `${cargoTool(program)}.${process.pid}`;
  await copyFile(built, fresh);
  await rename(fresh, cargoTool(program));
}

const removeTarget = () => rm(quickBuild.CARGO_TARGET_DIR, { recursive: true, force: true });

function whatToDo(what: string, output: string): string {
  if (/linker `\w+` not found|openssl-sys|pkg-config/.test(output)) {
    return `${what} needs a C compiler and OpenSSL's headers: install them (Debian, Ubuntu: \`apt install build-essential pkg-config libssl-dev\`) and run the command again.`;
  }
  return `cargo could not build ${what}: see its message above, check the network, and run the command again.`;
}

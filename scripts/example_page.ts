/** The example page (examples/astro): its packages, its static files, its development server. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { exampleFolder, programEnvironment } from './paths.ts';
import { type Ended, run } from './run_program.ts';
import { Failure, step } from './steps.ts';

/** The static files. */
export const exampleFiles = join(exampleFolder, 'dist');

/** The URLs of the page's services. */
export interface PageServices {
  aiSessionsUrl: string;
  supabaseUrl: string;
  supabaseAnonKey: string;
}

/** The placeholders of `buildExamplePage` for the services: the server of the files replaces them. */
export const placeholders: PageServices = {
  aiSessionsUrl: 'https://ai-sessions.invalid',
  supabaseUrl: 'https://supabase.invalid',
  supabaseAnonKey: 'the-anon-key',
};

const astro = join(exampleFolder, 'node_modules/astro/bin/astro.mjs');
const lock = join(exampleFolder, 'package-lock.json');
/** The lock file of the installed packages; written last, so that an interrupted installation does not count. */
const installedStamp = join(exampleFolder, 'node_modules/.installed-from');
/** The fingerprint of the sources of the static files. */
const builtStamp = join(exampleFiles, '.built-from');

export async function installExamplePage(): Promise<void> {
  const wanted = `${process.platform} ${process.arch} ${hashOf(await readFile(lock))}`;
  if ((await readFile(installedStamp, 'utf8').catch(() => '')) === wanted) return;
  await step("installing the example page's npm packages (npm ci)", async () => {
    const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
    const { ok, output } = await run('npm', args, { cwd: exampleFolder });
    if (!ok) {
      process.stderr.write(output);
      throw new Failure("The example page's packages could not be installed: see npm's message above, check the network and the registry.");
    }
    await writeFile(installedStamp, wanted);
  });
}

/** Brings the static files up to date. */
export async function buildExamplePage(): Promise<void> {
  await installExamplePage();
  const sources = await fingerprint();
  if ((await readFile(builtStamp, 'utf8').catch(() => '')) === sources) return;
  await step('building the example page (astro build)', async () => {
    await rm(builtStamp, { force: true });
    const { ok, output } = await run(process.execPath, [astro, 'build'], { cwd: exampleFolder, env: environment(placeholders) });
    if (!ok) {
      process.stderr.write(output);
      throw new Failure("The example page could not be built: see Astro's message above.");
    }
    await writeFile(builtStamp, sources);
  });
}

/** Whether openapi.ts agrees with the OpenAPI document; `npm run types` in the page's folder updates it. */
export async function checkPageTypes(): Promise<Ended> {
  await installExamplePage();
  return run('npm', ['run', '--silent', 'types', '--', '--check'], { cwd: exampleFolder });
}

export interface LocalPage {
  url: string;
  stop(): void;
}

/** Starts Astro's development server, which reloads changed sources of the page. */
export async function launchExamplePage(port: number, services: PageServices): Promise<LocalPage> {
  await installExamplePage();
  const server = spawn(process.execPath, [astro, 'dev', '--host', '127.0.0.1', '--port', String(port)], {
    cwd: exampleFolder,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: programEnvironment(environment(services)),
  });
  const stop = () => void server.kill();
  process.once('exit', stop);
  await ready(server);
  return { url: `http://127.0.0.1:${port}`, stop };
}

/** Waits until Astro listens; its output until then is shown only if it does not. */
function ready(server: ChildProcess): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let said = '';
  for (const stream of [server.stdout, server.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-8000);
      if (said.includes('127.0.0.1:')) resolve();
    });
  }
  server.once('error', reject).once('exit', () => reject(new Failure(`The example page did not start:\n${said}`)));
  return promise;
}

function environment({ aiSessionsUrl, supabaseUrl, supabaseAnonKey }: PageServices): Record<string, string> {
  return {
    ASTRO_TELEMETRY_DISABLED: '1',
    PUBLIC_AI_SESSIONS_URL: aiSessionsUrl,
    PUBLIC_SUPABASE_URL: supabaseUrl,
    PUBLIC_SUPABASE_ANON_KEY: supabaseAnonKey,
  };
}

async function fingerprint(): Promise<string> {
  const folders = await Promise.all(
    ['src', 'public'].map((folder) => readdir(join(exampleFolder, folder), { recursive: true, withFileTypes: true })),
  );
  const sources = folders.flat().filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const settings = ['astro.config.ts', 'tsconfig.json', 'package-lock.json'].map((file) => join(exampleFolder, file));
  const hash = createHash('sha256');
  for (const file of [...sources, ...settings].sort()) hash.update(`${file}\n`).update(await readFile(file));
  return hash.digest('hex');
}

const hashOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

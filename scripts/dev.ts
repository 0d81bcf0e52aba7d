/**
 * `npm run dev`: runs the whole service on this machine, with a generation from a sample text, and the example page; reloads
 * changed sources until Ctrl-C. `npm run dev -- --once` ends after the generation, with 0 if it succeeded.
 * `npm run dev -- --host supabase` runs it as an Edge Function on Deno instead of a Worker in workerd.
 */
import { mkdir } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { setServiceKey } from '../tests/support/service_key.ts';
import { startWorld, type World } from '../tests/support/world.ts';
import { build } from './build.ts';
import { type DevSettings, readDevSettings } from './dev_settings.ts';
import { launchExamplePage } from './example_page.ts';
import { startLocalFunction } from './local_function.ts';
import { folderOfPort, freePort, launchLocalWorker } from './local_worker.ts';
import { keepRunning } from './restarts.ts';
import { curlLine, makeSampleCandidates, writeSampleRequest } from './sample_candidates.ts';
import { watchSources } from './source_watch.ts';
import { Failure, messageOf, runScript, step } from './steps.ts';

const wantedPort = 8787;
/** Astro's default. */
const wantedPagePort = 4321;

/** The service on one of its hosts. */
interface LocalService {
  url: string;
  /** Takes over what was built; wrangler does that by itself. */
  reload(): Promise<void>;
  /** Settles when it has ended for good. */
  finished: Promise<void>;
}

/** How each host is named to the user. */
const hosts = { cloudflare: 'the Worker', supabase: 'the Edge Function' };
type Host = keyof typeof hosts;

/** The running parts, in the order of their start. */
const open: (() => Promise<void> | void)[] = [];

await runScript(async () => {
  const session = runSession(readArguments());
  try {
    await Promise.race([session, interruption()]);
  } finally {
    for (const close of open.toReversed()) await Promise.resolve(close()).catch((error: unknown) => console.error(messageOf(error)));
  }
});
// A part that was still starting at the interrupt is ended by its own exit handlers.
process.exit();

/** The first Ctrl-C ends all parts in order, a second one ends the process at once. */
function interruption(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let isStopping = false;
  const requestStop = () => {
    if (isStopping) process.exit(1);
    isStopping = true;
    console.log('\nStopping …');
    resolve();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, requestStop);
  return promise;
}

function readArguments(): { host: Host; once: boolean } {
  // npm forwards each `--` after its first.
  const args = process.argv.slice(2).filter((argument) => argument !== '--');
  const { values } = parseArgs({ args, options: { host: { type: 'string', default: 'cloudflare' }, once: { type: 'boolean', default: false } } });
  const { host, once } = values;
  if (!isHost(host)) throw new Failure(`There is no host "${host}": take one of ${Object.keys(hosts).join(', ')}.`);
  return { host, once };
}

function isHost(name: string): name is Host {
  return Object.hasOwn(hosts, name);
}

async function runSession({ host, once }: { host: Host; once: boolean }): Promise<void> {
  const settings = await readDevSettings();
  await build();
  const world = await step('starting the local world', () => {
    const starting = startWorld({ database: !settings.realSupabase, model: !settings.realModel });
    open.push(async () => (await starting).close());
    return starting;
  });

  const port = await freePort(wantedPort);
  if (port !== wantedPort) console.log(`Port ${wantedPort} is taken: ${hosts[host]} gets ${port}.`);
  const pagePort = await freePort(wantedPagePort);
  const vars: Record<string, string> = { ...settings.vars, ...localVars(settings, world), ALLOWED_ORIGINS: allowedOrigins(settings, pagePort) };
  const service = await (host === 'supabase' ? startFunction(port, vars, settings, world) : startWorker(port, vars));
  console.log(`\n${whatIsReal(settings, world)}\n`);

  const user = settings.realSupabase ? undefined : await world.auth.createUser();
  const newToken = () => (user === undefined ? settings.accessToken : world.auth.token(user));
  const candidates = showCandidates(service.url, folderOfPort(port), newToken);
  if (once) return candidates;
  await candidates.catch((error: unknown) => console.error(messageOf(error)));
  if (!settings.realSupabase) console.log(`\nTo look into the database: psql '${world.databaseUrl}'`);

  const page = await step(`starting the example page on port ${pagePort} (astro dev)`, async () => {
    const { SUPABASE_URL: supabaseUrl = '', SUPABASE_ANON_KEY: supabaseAnonKey = '' } = vars;
    const launched = await launchExamplePage(pagePort, { aiSessionsUrl: service.url, supabaseUrl, supabaseAnonKey });
    open.push(launched.stop);
    return launched;
    // The service is usable without the page.
  }).catch((error: unknown) => console.error(messageOf(error)));

  const rebuild = () => build().then(service.reload);
  const watch = watchSources(() => rebuild().catch((error: unknown) => console.error(`${messageOf(error)} ${capitalized(hosts[host])} before it stays up.`)));
  open.push(watch.close);
  const account = settings.realSupabase ? 'sign in as a user of your project' : 'create an account with any address and password';
  if (page !== undefined) console.log(`\n${page.url} is the example page: ${account}.`);
  console.log(`\n${service.url} is up and reloads on changes of src/. Ctrl-C ends it.`);
  await service.finished;
}

function capitalized(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

async function startWorker(port: number, vars: Record<string, string>): Promise<LocalService> {
  const worker = await step(`starting the Worker on port ${port} (wrangler dev)`, async () => {
    const launched = await launchLocalWorker(port, vars);
    open.push(launched.stop);
    await launched.ready();
    return launched;
  });
  const kept = keepRunning('wrangler dev', worker, () => launchLocalWorker(port, vars), console.error);
  open.push(kept.stop);
  return { url: worker.url, reload: async () => {}, finished: kept.finished };
}

async function startFunction(port: number, vars: Record<string, string>, settings: DevSettings, world: World): Promise<LocalService> {
  if (settings.realSupabase && vars['USER_STATE_KEY'] === undefined) {
    throw new Failure('USER_STATE_KEY is not set: put the key into .dev.vars that `select ai_sessions.set_service_key(…)` has set in your database.');
  }
  const key = settings.realSupabase ? {} : { USER_STATE_KEY: await setServiceKey(world) };
  const runtime = await step(`starting the Edge Function on port ${port} (deno)`, () => startLocalFunction(port, { ...vars, ...key }, console.log));
  open.push(runtime.close);
  await mkdir(folderOfPort(port), { recursive: true });
  // It starts a new isolate when one ends.
  return { url: runtime.url, reload: runtime.restart, finished: new Promise(() => {}) };
}

/** Makes cards once, then prints the command that repeats it. */
async function showCandidates(workerUrl: string, folder: string, newToken: () => string | undefined): Promise<void> {
  const requestFile = await writeSampleRequest(folder, workerUrl);
  const token = newToken();
  if (token === undefined) {
    console.log('A token of your own Supabase project is needed. Get one by signing in:\n');
    console.log(`  curl -sS "$SUPABASE_URL/auth/v1/token?grant_type=password" -H "apikey: $SUPABASE_ANON_KEY" -H 'Content-Type: application/json' --data '{"email":"…","password":"…"}'\n`);
    console.log('Put its access_token into the environment as ACCESS_TOKEN, then start again, or make cards with:\n');
    console.log(`  ${curlLine(workerUrl, '$ACCESS_TOKEN', requestFile)}`);
    throw new Failure('No cards were made: ACCESS_TOKEN is not set.');
  }
  try {
    console.log(await makeSampleCandidates(workerUrl, token, requestFile));
  } finally {
    console.log(`\nMake cards again, in bash, in the project's folder:\n\n${curlLine(workerUrl, newToken() ?? token, requestFile)}`);
  }
}

/** The Worker's variables for the local world. */
function localVars(settings: DevSettings, world: World): Record<string, string> {
  return {
    ...(settings.realSupabase ? {} : { SUPABASE_URL: world.supabaseUrl, SUPABASE_ANON_KEY: world.anonKey }),
    ...(settings.realModel ? {} : { OPENROUTER_BASE_URL: world.openrouter.url, OPENROUTER_API_KEY: world.openrouter.key }),
  };
}

/** The origins of the example page, by both names of this machine, besides those of .dev.vars. */
function allowedOrigins({ vars }: DevSettings, pagePort: number): string {
  const own = vars['ALLOWED_ORIGINS'];
  return own === '*' ? own : [own, `http://127.0.0.1:${pagePort}`, `http://localhost:${pagePort}`].filter((origin) => origin !== undefined).join(',');
}

function whatIsReal({ realSupabase, realModel, vars }: DevSettings, world: World): string {
  const supabase = vars['SUPABASE_URL'];
  return [
    realSupabase ? `sign-in   real: ${supabase}` : `sign-in   STAND-IN for Supabase Auth at ${world.supabaseUrl}/auth/v1 (SUPABASE_URL and SUPABASE_ANON_KEY for your own project)`,
    realSupabase ? `database  real: ${supabase}` : `database  real, on this machine: a Postgres and a PostgREST of this session, with the migrations`,
    realModel ? `model     real: ${vars['OPENROUTER_BASE_URL'] ?? 'OpenRouter'}` : `model     STAND-IN for OpenRouter at ${world.openrouter.url} (OPENROUTER_API_KEY for the real one)`,
  ].join('\n');
}

/** The settings of `npm run dev` from the environment and .dev.vars: which services are real. */
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseEnv } from 'node:util';
import { localFolder, root } from './paths.ts';
import { Failure } from './steps.ts';

export interface DevSettings {
  /** Variables for the Worker, which precede those of wrangler.toml. */
  vars: Record<string, string>;
  realSupabase: boolean;
  realModel: boolean;
  /** A user's token for a real Supabase, which cannot be made here. */
  accessToken: string | undefined;
}

/** Read from the environment too; the other variables of the service only from .dev.vars. */
const fromEnvironment = [
  'SUPABASE_URL',
  'SUPABASE_ANON_KEY',
  'SUPABASE_JWT_SECRET',
  'OPENROUTER_API_KEY',
  'OPENROUTER_BASE_URL',
  'ALLOWED_MODELS',
  'ACCESS_TOKEN',
];

/** Of a Supabase project: with them, the local world would accept the tokens of another project, or refuse its own key. */
const ofAProject = ['SUPABASE_JWT_SECRET', 'SUPABASE_JWKS', 'SUPABASE_PUBLISHABLE_KEYS'];

/** The environment precedes the file. */
export async function readDevSettings(): Promise<DevSettings> {
  const file = parseEnv(await readFile(join(root, '.dev.vars'), 'utf8').catch(() => ''));
  const environment = fromEnvironment.map((name) => [name, process.env[name]] as const);
  const given = [...Object.entries(file), ...environment].filter(([, value]) => value !== undefined && value !== '');
  const { ACCESS_TOKEN: accessToken, ...vars } = Object.fromEntries(given) as Record<string, string>;

  const realSupabase = togetherOrNot(vars, 'SUPABASE_URL', 'SUPABASE_ANON_KEY');
  if (!realSupabase) for (const name of ofAProject) delete vars[name];
  const realModel = vars['OPENROUTER_API_KEY'] !== undefined;
  if (!realModel && vars['OPENROUTER_BASE_URL'] !== undefined) {
    throw new Failure('OPENROUTER_BASE_URL is set without OPENROUTER_API_KEY: set both (a model server of your own takes any key), or neither.');
  }
  vars['SERVICE_SECRET'] ??= await localSecret();
  return { vars, realSupabase, realModel, accessToken };
}

/** A secret of this copy of the project, kept over restarts, so that idempotency keys have the same sessions. */
async function localSecret(): Promise<string> {
  const file = join(localFolder, 'service-secret');
  const kept = await readFile(file, 'utf8').catch(() => '');
  if (kept !== '') return kept;
  const secret = randomBytes(32).toString('hex');
  await mkdir(localFolder, { recursive: true });
  // Of two concurrent starts, one makes it.
  await writeFile(file, secret, { mode: 0o600, flag: 'wx' }).catch(() => {});
  return (await readFile(file, 'utf8')) || secret;
}

function togetherOrNot(vars: Record<string, string>, one: string, other: string): boolean {
  const [has, hasOther] = [vars[one] !== undefined, vars[other] !== undefined];
  if (has !== hasOther) {
    throw new Failure(`${has ? one : other} is set without ${has ? other : one}: set both for your own Supabase project, or neither for a local one.`);
  }
  return has;
}

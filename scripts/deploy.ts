/**
 * `npm run deploy`: checks the Worker's variables and secrets, prints the deployment, deploys after a yes (typed, or `--yes`), and
 * checks that the deployment is ready; if not, it says how to roll back. The migrations of the database are listed, not applied.
 * Cloudflare only: Supabase's own tool deploys the Edge Function.
 *
 * `--dry-run` ends before the deployment, and works without being signed in. `--url https://…` names the URL to check, where
 * wrangler does not. `--wait 90` is the time for the new version to be ready, in seconds.
 */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { parseArgs } from 'node:util';
import { unstable_readConfig as readConfig } from 'wrangler';
import { build } from './build.ts';
import { root } from './paths.ts';
import { readyUrl, waitUntilReady } from './ready.ts';
import { Failure, messageOf, runScript, step } from './steps.ts';
import { wrangler } from './wrangler.ts';

/** A secret must not be in a file; the others may also be plain variables. */
const required = [
  { name: 'OPENROUTER_API_KEY', secret: true },
  { name: 'SUPABASE_URL', secret: false },
  { name: 'SUPABASE_ANON_KEY', secret: false },
];

const howToMakeASecret = 'make one and set it as a secret by\n  openssl rand -hex 32 | npx wrangler secret put SERVICE_SECRET';

/** It is needed for some API keys, which cannot be read once they are set. */
const aboutTheSecret = `SERVICE_SECRET is not set. It is derived from OPENROUTER_API_KEY if that has at least 32 characters; if not, the Worker
refuses its configuration. To have one that does not change with the API key, ${howToMakeASecret}`;

await runScript(async () => {
  const options = readOptions();
  const { name: worker = '', vars } = readConfig({ config: join(root, 'wrangler.toml') });
  const secrets = await step('listing the secrets at Cloudflare (wrangler secret list)', readSecrets);
  if (secrets === undefined && !options.dryRun) {
    throw new Failure(
      'You are not signed in to Cloudflare: run `npx wrangler login` (or set CLOUDFLARE_API_TOKEN), then `npm run deploy` again. ' +
        'To deploy to Supabase instead, see docs/supabase.md.',
    );
  }
  if (secrets === undefined) console.log('You are not signed in to Cloudflare: whether the secrets are set is not checked.');
  const missing = required.filter(({ name, secret }) => secrets !== undefined && !secrets.includes(name) && (secret || !vars[name]));
  if (missing.length > 0) throw new Failure(howToSet(missing));
  if (vars['SERVICE_SECRET'] !== undefined) throw new Failure(`Nothing was deployed, because SERVICE_SECRET is in wrangler.toml: ${howToMakeASecret}`);
  await build();

  console.log(`\nThis will be done: wrangler deploy puts build/ online as the Worker "${worker}", with the settings of wrangler.toml:\n`);
  const plan = await wrangler(['deploy', '--dry-run'], { show: 'live' });
  if (!plan.ok) throw new Failure('wrangler deploy --dry-run failed: see its message above. Nothing was deployed.');
  if (secrets !== undefined && !secrets.includes('SERVICE_SECRET')) console.log(`\n${aboutTheSecret}`);
  console.log(`\n${await aboutMigrations()}\n`);
  if (options.dryRun) {
    console.log('Nothing was deployed: this was a dry run.');
    return;
  }
  if (!(options.yes || (await isConfirmed()))) throw new Failure('Nothing was deployed: say yes, or run `npm run deploy -- --yes`.');

  const previous = await currentVersion();
  const { version, targets } = await deploy();
  const url = readyUrl(options.url, String(vars['PUBLIC_URL'] ?? ''), targets);
  if (url === undefined) {
    throw new Failure('It is deployed, but not checked, because wrangler named no URL: request /health/ready there, and use `--url https://…` the next time.');
  }
  await step(`checking that GET ${url} responds with 200`, async () => {
    const outcome = await waitUntilReady(url, headersOf(worker, version), { within_ms: options.wait_s * 1000 });
    if (!outcome.ready) throw new Failure(howToRollBack(outcome.lines, previous));
  });
});

interface Options {
  yes: boolean;
  dryRun: boolean;
  url: string | undefined;
  wait_s: number;
}

function readOptions(): Options {
  try {
    const { values } = parseArgs({
      options: {
        yes: { type: 'boolean', default: false },
        'dry-run': { type: 'boolean', default: false },
        url: { type: 'string' },
        // A location has the new version within seconds. A check takes at most 5 s and is repeated by an isolate after 30 s, so
        // two can fail before one succeeds.
        wait: { type: 'string', default: '90' },
      },
    });
    const wait_s = Number(values.wait);
    if (!(wait_s > 0)) throw new Failure('--wait must be a number of seconds');
    if (values.url !== undefined && !/^https?:\/\/./.test(values.url)) throw new Failure('--url must begin with https://');
    return { yes: values.yes, dryRun: values['dry-run'], url: values.url, wait_s };
  } catch (error) {
    throw new Failure(`${messageOf(error)}\nUse: npm run deploy -- [--dry-run] [--yes] [--url https://…] [--wait seconds]`);
  }
}

/** The names of the secrets; `undefined` if wrangler is not signed in. */
async function readSecrets(): Promise<string[] | undefined> {
  const { ok, output, stdout } = await wrangler(['secret', 'list', '--format', 'json']);
  if (ok) return (JSON.parse(stdout) as { name: string }[]).map(({ name }) => name);
  // A Worker that does not exist yet has no secrets; setting the first one makes it.
  if (/Worker "[^"]+" not found/.test(output)) return [];
  if (/CLOUDFLARE_API_TOKEN|not logged in|wrangler login/i.test(output)) return undefined;
  process.stderr.write(output);
  throw new Failure('Cloudflare did not say which secrets are set: see the message above. Nothing was deployed.');
}

function howToSet(missing: typeof required): string {
  const lines = missing.map(({ name, secret }) => {
    const orVariable = secret ? '' : '   (or a line in [vars] of wrangler.toml)';
    return `  npx wrangler secret put ${name}${orVariable}`;
  });
  return `Nothing was deployed, because ${missing.map(({ name }) => name).join(', ')} must be set first:\n${lines.join('\n')}`;
}

async function aboutMigrations(): Promise<string> {
  const files = (await readdir(join(root, 'migrations')).catch(() => [])).filter((file) => file.endsWith('.sql')).sort();
  return [
    'Not done here: the migrations of your database. There are:',
    ...files.map((file) => `  migrations/${file}`),
    'migrations/README.md says how to apply those that it does not have yet; do that before you deploy.',
  ].join('\n');
}

async function isConfirmed(): Promise<boolean> {
  if (!process.stdin.isTTY) return false;
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await terminal.question('Deploy? Type yes: ').finally(() => terminal.close());
  return answer.trim().toLowerCase() === 'yes';
}

/** The id of the version that has most of the traffic; `undefined` before the first deployment. */
async function currentVersion(): Promise<string | undefined> {
  const { ok, stdout } = await wrangler(['deployments', 'status', '--json']);
  if (!ok) return undefined;
  const { versions } = JSON.parse(stdout) as { versions: { version_id: string; percentage: number }[] };
  return versions.sort((a, b) => b.percentage - a.percentage)[0]?.version_id;
}

interface Deployed {
  version: string | undefined;
  /** As wrangler prints them. */
  targets: string[];
}

async function deploy(): Promise<Deployed> {
  const folder = await mkdtemp(join(tmpdir(), 'ai-sessions-deploy-'));
  try {
    // wrangler writes this file for programs: a line of JSON for each event.
    const file = join(folder, 'events');
    const { ok } = await wrangler(['deploy'], { show: 'live', env: { WRANGLER_OUTPUT_FILE_PATH: file } });
    if (!ok) throw new Failure('wrangler deploy failed: see its message above.');
    const lines = (await readFile(file, 'utf8')).trim().split('\n');
    const event = lines.map((line) => JSON.parse(line)).find(({ type }) => type === 'deploy');
    return { version: event?.version_id ?? undefined, targets: event?.targets ?? [] };
  } finally {
    await rm(folder, { recursive: true });
  }
}

/**
 * Sends the request to the new version wherever it is known already:
 * https://developers.cloudflare.com/workers/versions-and-deployments/version-overrides/
 */
function headersOf(worker: string, version: string | undefined): Record<string, string> {
  return version === undefined ? {} : { 'Cloudflare-Workers-Version-Overrides': `${worker}="${version}"` };
}

/** With the flag, because objects in use would otherwise keep the code that is not ready for up to five minutes. */
function howToRollBack(lines: string[], previous: string | undefined): string {
  const rollback =
    previous === undefined
      ? 'There is no earlier version: correct the fault and deploy again.'
      : `To roll back to the version before it:\n  npx wrangler rollback ${previous} --durable-objects-code-update-mode immediate`;
  return [
    'The new version is deployed, but it is not ready:',
    ...lines.map((line) => `  ${line}`),
    rollback,
    'While a dependency is down, no version is ready: operations/runbook.md says what to do.',
  ].join('\n');
}

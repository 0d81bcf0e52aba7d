/**
 * `npm run deploy`: checks the Worker's variables and secrets, prints the deployment, and deploys after a yes (typed, or
 * `--yes`). The migrations of the database are listed, not applied. Cloudflare only: Supabase's own tool deploys the Edge Function.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { unstable_readConfig as readConfig } from 'wrangler';
import { build } from './build.ts';
import { root } from './paths.ts';
import { Failure, runScript, step } from './steps.ts';
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
  const { name: worker, vars } = readConfig({ config: join(root, 'wrangler.toml') });
  const secrets = await step('listing the secrets at Cloudflare (wrangler secret list)', readSecrets);
  const missing = required.filter(({ name, secret }) => !secrets.includes(name) && (secret || !vars[name]));
  if (missing.length > 0) throw new Failure(howToSet(missing));
  if (vars['SERVICE_SECRET'] !== undefined) throw new Failure(`Nothing was deployed, because SERVICE_SECRET is in wrangler.toml: ${howToMakeASecret}`);
  await build();

  console.log(`\nThis will be done: wrangler deploy puts build/ online as the Worker "${worker}", with the settings of wrangler.toml:\n`);
  const plan = await wrangler(['deploy', '--dry-run'], { show: 'live' });
  if (!plan.ok) throw new Failure('wrangler deploy --dry-run failed: see its message above. Nothing was deployed.');
  if (!secrets.includes('SERVICE_SECRET')) console.log(`\n${aboutTheSecret}`);
  console.log(`\n${await aboutMigrations()}\n`);
  if (!(await isConfirmed())) throw new Failure('Nothing was deployed: say yes, or run `npm run deploy -- --yes`.');
  const { ok } = await wrangler(['deploy'], { show: 'live' });
  if (!ok) throw new Failure('wrangler deploy failed: see its message above.');
});

async function readSecrets(): Promise<string[]> {
  const { ok, output, stdout } = await wrangler(['secret', 'list', '--format', 'json']);
  if (ok) return (JSON.parse(stdout) as { name: string }[]).map(({ name }) => name);
  // A Worker that does not exist yet has no secrets; setting the first one makes it.
  if (/Worker "[^"]+" not found/.test(output)) return [];
  if (/CLOUDFLARE_API_TOKEN|not logged in|wrangler login/i.test(output)) {
    throw new Failure(
      'You are not signed in to Cloudflare: run `npx wrangler login` (or set CLOUDFLARE_API_TOKEN), then `npm run deploy` again. ' +
        'To deploy to Supabase instead, see docs/supabase.md.',
    );
  }
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
  if (process.argv.includes('--yes')) return true;
  if (!process.stdin.isTTY) return false;
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await terminal.question('Deploy? Type yes: ').finally(() => terminal.close());
  return answer.trim().toLowerCase() === 'yes';
}

/**
 * `npm run load`: sends some thousands of requests of a hundred users to the Worker in workerd, on this machine only: valid,
 * invalid and refused ones, with failures of the model and the database. Fails if one response or row is not accounted for.
 * `npm run load -- --requests 300` sends fewer, `--seed 7` repeats the choices of a run, `--host supabase` sends them to two
 * isolates of the Edge Function.
 */
import { parseArgs } from 'node:util';
import type { Service } from '../tests/service/service.ts';
import { printed } from '../tests/load/figures.ts';
import { onSupabaseEdge, onWorkerd } from '../tests/load/hosts.ts';
import { type LoadedHost, runLoad } from '../tests/load/run.ts';
import { build } from './build.ts';
import { Failure, runScript, step } from './steps.ts';

/** The number of deviations that are printed. */
const shown = 20;

await runScript(async () => {
  const { values } = parseArgs({
    options: { requests: { type: 'string', default: '3000' }, seed: { type: 'string' }, host: { type: 'string', default: 'cloudflare' } },
  });
  const requests = wholeNumber(values.requests, 'requests', 100_000);
  const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 32) : wholeNumber(values.seed, 'seed', 2 ** 32 - 1);
  const runs = new Map([
    ['cloudflare', () => load(onWorkerd, requests, seed)],
    ['supabase', () => load(onSupabaseEdge, requests, seed)],
  ]);
  const run = runs.get(values.host);
  if (run === undefined) throw new Failure(`--host takes cloudflare or supabase, not "${values.host}".`);
  await build();
  await run();
});

async function load<S extends Service>(host: LoadedHost<S>, requests: number, seed: number): Promise<void> {
  const service = await step(`starting the service on ${host.program} in a local world`, host.start);
  try {
    const outcome = await step(`${requests} requests (--seed ${seed})`, () => runLoad(host, service, { requests, seed }));
    console.log(`\n${printed(outcome)}\n`);
    for (const sentence of outcome.wrong.slice(0, shown)) console.error(sentence);
    if (outcome.wrong.length > 0) throw new Failure(`${outcome.wrong.length} things do not add up: run it again with --seed ${seed}.`);
    console.log('Every response is one that its request allows, and every row, model call and charge is accounted for.');
  } finally {
    await service.close();
  }
}

function wholeNumber(given: string, name: string, max: number): number {
  const number = Number(given);
  if (!Number.isInteger(number) || number < 1 || number > max) throw new Failure(`--${name} takes a whole number from 1 to ${max}, not "${given}".`);
  return number;
}

/**
 * `npm run load`: sends some thousands of requests of a hundred users to the Worker in workerd, on this machine only: valid,
 * invalid and refused ones, with failures of the model and the database. Fails if one response or row is not accounted for.
 * `npm run load -- --requests 300` sends fewer, `--seed 7` repeats the choices of a run.
 */
import { parseArgs } from 'node:util';
import { startOnWorkerd } from '../tests/hosts/workerd.ts';
import { printed } from '../tests/load/figures.ts';
import { runLoad, VARIABLES } from '../tests/load/run.ts';
import { build } from './build.ts';
import { Failure, runScript, step } from './steps.ts';

/** The number of deviations that are printed. */
const shown = 20;

await runScript(async () => {
  const { values } = parseArgs({ options: { requests: { type: 'string', default: '3000' }, seed: { type: 'string' } } });
  const requests = wholeNumber(values.requests, 'requests', 100_000);
  const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 32) : wholeNumber(values.seed, 'seed', 2 ** 32 - 1);
  await build();
  const service = await step('starting the Worker in a local world', () => startOnWorkerd(VARIABLES));
  try {
    const outcome = await step(`${requests} requests (--seed ${seed})`, () => runLoad(service, { requests, seed }));
    console.log(`\n${printed(outcome)}\n`);
    for (const sentence of outcome.wrong.slice(0, shown)) console.error(sentence);
    if (outcome.wrong.length > 0) throw new Failure(`${outcome.wrong.length} things do not add up: run it again with --seed ${seed}.`);
    console.log('Every response is one that its request allows, and every row, model call and charge is accounted for.');
  } finally {
    await service.close();
  }
});

function wholeNumber(given: string, name: string, max: number): number {
  const number = Number(given);
  if (!Number.isInteger(number) || number < 1 || number > max) throw new Failure(`--${name} takes a whole number from 1 to ${max}, not "${given}".`);
  return number;
}

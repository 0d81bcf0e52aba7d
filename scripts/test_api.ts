/**
 * `npm run test:api`: sends the service, on this machine only, requests that openapi.json allows and forbids, and fails when a
 * response is not described there (schemathesis, a property-based tester from PyPI, in its own Python environment).
 * `npm run test:api -- --examples 500` sends more, `--seed 7` repeats the choices of a run.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Service } from '../tests/service/service.ts';
import { startOnWorkerd } from '../tests/hosts/workerd.ts';
import { contract } from '../tests/support/contract.ts';
import { build } from './build.ts';
import { root, toolsFolder } from './paths.ts';
import { ensurePythonPackages } from './python_packages.ts';
import { run } from './run_program.ts';
import { Failure, runScript, step } from './steps.ts';

const folder = join(root, 'tests/api');
const environment = join(toolsFolder, 'python');
const program = join(environment, 'bin/schemathesis');
const requirements = join(folder, 'requirements.txt');

/** Installs the tester and its dependencies, at the pinned versions with the pinned hashes. */
export const ensureApiTester = (): Promise<void> => ensurePythonPackages(environment, requirements, { name: 'schemathesis', program });

export type ApiRun = {
  ok: boolean;
  /** The report of the tester, with a request for each finding. */
  report: string;
  /** The number of requests made from the document. */
  cases: number;
};

/** Limits that are never reached: the tests are about everything behind them. */
export const API_VARIABLES = { RATE_LIMIT_BURST: '1000000/1', RATE_LIMIT_GENERATIONS: '1000000/1', RATE_LIMIT_CONCURRENT: '100' };

/** Tests that service, each operation with this many examples, and sequences of operations. */
export async function testApi({ url, world }: Service, examples: number, seed: number): Promise<ApiRun> {
  const kept = await mkdtemp(join(tmpdir(), 'ai-sessions-api-'));
  try {
    const { models } = (await (await fetch(`${url}/models`)).json()) as { models: { id: string }[] };
    const document = join(kept, 'openapi.json');
    await writeFile(document, JSON.stringify(forTester(models.map(({ id }) => id))));
    const settings = ['--config-file', join(folder, 'schemathesis.toml')];
    const bounds = ['--max-examples', String(examples), '--seed', String(seed), '--request-timeout', '30'];
    const { ok, output } = await run(program, [...settings, 'run', document, '--url', url, '--warnings', 'off', ...bounds], {
      cwd: kept,
      env: { API_TOKEN: world.auth.token(await world.auth.createUser()), COLUMNS: '120' },
    });
    return { ok, report: output, cases: Number(/(\d+) generated/.exec(output)?.[1] ?? 0) };
  } finally {
    await rm(kept, { recursive: true, force: true });
  }
}

/** The document with values that its schemas cannot contain, and with the schema of a stream for each event, as the tester expects it. */
function forTester(models: string[]): object {
  const document = structuredClone(contract);
  const { schemas, examples } = document['components'];
  schemas.NewSession.properties.model.enum = models;
  // A text that looks too long may be valid after sanitizing.
  delete schemas.NewSession.properties.input_text.maxLength;
  examples.water_cycle.value.model = models[0];
  const events = Object.keys(schemas.EventStream['x-events']);
  schemas.EventStream = { type: 'object', required: ['id', 'event', 'data'], properties: { event: { enum: events } } };
  return document;
}

if (import.meta.main) {
  await runScript(async () => {
    const { values } = parseArgs({ options: { examples: { type: 'string', default: '100' }, seed: { type: 'string' } } });
    const examples = wholeNumber(values.examples, 'examples');
    const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 32) : wholeNumber(values.seed, 'seed');
    await ensureApiTester();
    await build();
    const service = await step('starting the Worker in a local world', () => startOnWorkerd(API_VARIABLES));
    try {
      const { ok, report, cases } = await step(`testing with ${examples} examples of each operation (--seed ${seed})`, () => testApi(service, examples, seed));
      if (!ok) {
        console.error(report);
        throw new Failure(`An answer is not as openapi.json describes it: see above, and run it again with --seed ${seed}.`);
      }
      console.log(`  ${cases} requests, and openapi.json describes every response`);
    } finally {
      await service.close();
    }
  });
}

function wholeNumber(given: string, name: string): number {
  const number = Number(given);
  if (!Number.isInteger(number) || number < 1) throw new Failure(`--${name} takes a whole number from 1 on, not "${given}".`);
  return number;
}

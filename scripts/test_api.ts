/**
 * `npm run test:api`: asks the service, on this machine only, for whatever openapi.json allows and forbids, and fails when
 * an answer is not described there (schemathesis, a property-based tester from PyPI, in a Python environment of its own).
 * `npm run test:api -- --examples 500` asks more, `--seed 7` makes the same choices again.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Service } from '../tests/service/service.ts';
import { startOnWorkerd } from '../tests/hosts/workerd.ts';
import { contract } from '../tests/support/contract.ts';
import { build } from './build.ts';
import { root, toolsFolder } from './paths.ts';
import { run } from './run_program.ts';
import { Failure, runScript, step } from './steps.ts';

const folder = join(root, 'tests/api');
const environment = join(toolsFolder, 'python');
const program = join(environment, 'bin/schemathesis');
const requirements = join(folder, 'requirements.txt');
/** The requirements that are installed; written last, so that a broken installation does not count. */
const installedStamp = join(environment, '.installed-from');

const PYTHON_IS_MISSING =
  'Python is missing, which the tester of the API needs: install Python 3.11 or newer with its venv (Debian, Ubuntu: `apt install python3 python3-venv`) and run the command again.';

/** Makes sure of the tester and everything below it, at the pinned versions with the pinned hashes. */
export async function ensureApiTester(): Promise<void> {
  const wanted = await readFile(requirements, 'utf8');
  const pinned = /^schemathesis==([^ ]+)/m.exec(wanted)?.[1];
  const installed = await readFile(installedStamp, 'utf8').catch(() => '');
  const { stdout } = await run(program, ['--version']).catch(() => ({ stdout: '' }));
  if (installed === wanted && stdout.trim().split(' ').at(-1) === pinned) return;
  await step(`installing schemathesis ${pinned} into .tools/python/ (pip; once)`, async () => {
    await rm(environment, { recursive: true, force: true });
    const made = await run('python3', ['-m', 'venv', environment], { ifMissing: PYTHON_IS_MISSING });
    if (!made.ok) {
      process.stderr.write(made.output);
      throw new Failure(PYTHON_IS_MISSING);
    }
    const { ok, output } = await run(join(environment, 'bin/python'), ['-m', 'pip', 'install', '--quiet', '--require-hashes', '-r', requirements]);
    if (!ok) {
      process.stderr.write(output);
      throw new Failure("pip could not install schemathesis: see its message above, check the network and the index, and run the command again.");
    }
    await writeFile(installedStamp, wanted);
  });
}

export type ApiRun = {
  ok: boolean;
  /** What the tester says, with a request for each finding. */
  report: string;
  /** How many requests it made of the document. */
  cases: number;
};

/** Limits that nobody reaches: what is tested is everything behind them. */
export const API_VARIABLES = { RATE_LIMIT_BURST: '1000000/1', RATE_LIMIT_GENERATIONS: '1000000/1', RATE_LIMIT_CONCURRENT: '100' };

/** Asks that service, for each operation with so many examples and in sequences of operations. */
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

/** The document with what a schema in it cannot know, and with the schema of a stream as the tester takes it: for each event. */
function forTester(models: string[]): object {
  const document = structuredClone(contract);
  const { schemas, examples } = document['components'];
  schemas.NewSession.properties.model.enum = models;
  // Counted after its cleaning, a text that looks too long may hold.
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
    const service = await step('starting the Worker and what it has around it', () => startOnWorkerd(API_VARIABLES));
    try {
      const { ok, report, cases } = await step(`asking with ${examples} examples of each operation (--seed ${seed})`, () => testApi(service, examples, seed));
      if (!ok) {
        console.error(report);
        throw new Failure(`An answer is not as openapi.json describes it: see above, and run it again with --seed ${seed}.`);
      }
      console.log(`  ${cases} requests, and every answer is as openapi.json describes it`);
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

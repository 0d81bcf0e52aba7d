/** `npm test`: cargo's tests, then Node's against the built module; the last line counts those of all runners. */
import { glob, readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { build } from './build.ts';
import { ensureChromium } from './chromium.ts';
import { ensureClickHouse } from './clickhouse.ts';
import { buildExamplePage } from './example_page.ts';
import { buildFuzzTargets } from './fuzz.ts';
import { runNodeTests } from './node_tests.ts';
import { OrderedOutput } from './ordered_output.ts';
import { root } from './paths.ts';
import { runRust } from './run_program.ts';
import { ensureRustToolchain } from './rust_toolchain.ts';
import { Failure, messageOf, runScript } from './steps.ts';
import { ensureApiTester } from './test_api.ts';
import { type Counts, add, countsOfCargo, judge, none } from './test_counts.ts';

/** Parts that run one after the other, beside the other lanes of the stage. */
interface Lane {
  /** Folders of tests/. */
  parts: string[];
  /** The files; default: all. */
  has?: (file: string) => boolean;
  /** How many files run at once; default: one. */
  atOnce?: number;
}

/** CI has two cores, and each file may start a database of its own. */
const filesAtOnce = 2;

/**
 * Files that run tests/service, or a part of it: never three at once, because their deadlines are real. Most of the tests wait for one, so that
 * a file of another kind beside two of them keeps two cores no more than busy.
 */
const isServiceSuite = (file: string) => /^((workerd|supabase_edge)_\d+|base_path|supabase_newest_deno)\.test\.ts$/.test(basename(file));

/** The stages run one after the other. The lanes of a stage take about the same time. */
const stages: Lane[][] = [
  [{ parts: ['scripts'] }, { parts: ['support', 'client', 'database'] }],
  [
    { parts: ['hosts'], has: isServiceSuite, atOnce: filesAtOnce },
    { parts: ['hosts'], has: (file) => !isServiceSuite(file) },
  ],
  [{ parts: ['browser'], atOnce: filesAtOnce }],
  [{ parts: ['operations'] }, { parts: ['api', 'fuzz'] }],
];

/** The files in tests/service are run by each host's files in tests/hosts. */
const parts = [...new Set(['core', ...stages.flat().flatMap((lane) => lane.parts)])];

/** The builds that a part needs; a failed build fails its part only. */
const builds = new Map<string, () => Promise<void>>([
  ['hosts', build],
  ['scripts', build],
  ['api', () => build().then(ensureApiTester)],
  ['operations', () => build().then(ensureClickHouse)],
  ['browser', async () => {
    await build();
    await buildExamplePage();
    await ensureChromium();
  }],
  ['fuzz', buildFuzzTargets],
]);

await runScript(async () => {
  const requested = process.argv.slice(2);
  const unknown = requested.find((part) => !parts.includes(part));
  if (unknown !== undefined) throw new Failure(`There are no tests "${unknown}": take some of ${parts.join(', ')}, or none of them for all.`);
  const chosen = requested.length > 0 ? requested : parts;

  const counts = new Map<string, Counts>(chosen.map((part) => [part, none]));
  const count = (part: string, more: Counts) => void counts.set(part, add(counts.get(part) ?? none, more));
  if (chosen.includes('core')) count('core', await cargoTests());
  for (const stage of stages) {
    const wanted = parts.filter((part) => chosen.includes(part) && stage.some((lane) => lane.parts.includes(part)));
    const ready = new Set<string>();
    for (const part of wanted) {
      const make = builds.get(part);
      if (make === undefined || (await isBuilt(make))) ready.add(part);
      else count(part, { passed: 0, failed: 1 });
    }
    await runStage(stage, ready, count);
  }
  if (requested.length === 0) counts.set('README.md', await statedCounts(counts));

  const all = [...counts.values()].reduce(add, none);
  if (all.failed > 0) process.exitCode = 1;
  console.log([...counts].map(([part, { passed, failed }]) => `${part}: ${passed + failed}`).join(', '));
  console.log(`${all.passed} passed, ${all.failed} failed`);
});

/** Whether the README states how many cases each kind has, to a tenth. */
async function statedCounts(counts: Map<string, Counts>): Promise<Counts> {
  const readme = await readFile(join(root, 'README.md'), 'utf8');
  const wrong = [...counts].filter(([part, { passed, failed }]) => {
    const stated = Number(new RegExp(`^- \`${part}\` \\((\\d+) case`, 'm').exec(readme)?.[1]);
    return !(Math.abs(stated - passed - failed) <= stated / 10);
  });
  for (const [part, { passed, failed }] of wrong) console.error(`README.md does not say that \`${part}\` has ${passed + failed} cases, to a tenth.`);
  return { passed: wrong.length === 0 ? 1 : 0, failed: wrong.length === 0 ? 0 : 1 };
}

async function cargoTests(): Promise<Counts> {
  await ensureRustToolchain();
  const { ok, output } = await runRust('cargo', ['test', '--no-fail-fast'], { show: 'live' });
  return judge(countsOfCargo(output), ok);
}

function isBuilt(make: () => Promise<void>): Promise<boolean> {
  return make().then(
    () => true,
    (error: unknown) => {
      console.error(messageOf(error));
      return false;
    },
  );
}

/** Runs the lanes of a stage side by side. A lane alone runs as many files at once as two lanes do. */
async function runStage(stage: Lane[], ready: Set<string>, count: (part: string, counts: Counts) => void): Promise<void> {
  const lanes = stage.map((lane) => ({ ...lane, parts: lane.parts.filter((part) => ready.has(part)) })).filter(({ parts }) => parts.length > 0);
  const output = new OrderedOutput((text) => void process.stdout.write(text));
  await Promise.all(
    lanes.map(async ({ parts, has = () => true, atOnce = 1 }, lane) => {
      for (const part of parts) {
        const files = (await testFiles(part)).filter(has);
        count(part, await runNodeTests(files, lanes.length === 1 ? filesAtOnce : atOnce, (text) => output.write(lane, text)));
      }
      output.end(lane);
    }),
  );
}

/** Largest first: a long file that starts last leaves a core idle. */
async function testFiles(folder: string): Promise<string[]> {
  const files: { file: string; bytes: number }[] = [];
  for await (const name of glob(`tests/${folder}/**/*.test.ts`, { cwd: root })) files.push({ file: join(root, name), bytes: (await stat(join(root, name))).size });
  return files.sort((a, b) => b.bytes - a.bytes || a.file.localeCompare(b.file)).map(({ file }) => file);
}

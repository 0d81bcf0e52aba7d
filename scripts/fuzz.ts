/**
 * `npm run fuzz`: runs each parser of foreign bytes with generated inputs, each target of fuzz/ for a minute.
 * `npm run fuzz -- --seconds 600 token` runs one target longer. It fails on a finding; findings are kept in fuzz/findings/,
 * interesting inputs in fuzz/corpus/, from which the next run continues.
 */
import { readdirSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { root } from './paths.ts';
import { run, runRust } from './run_program.ts';
import { ensureRustToolchain } from './rust_toolchain.ts';
import { Failure, runScript, step } from './steps.ts';

const folder = join(root, 'fuzz');

/** The targets: every file of fuzz/targets. */
export const fuzzTargets = readdirSync(join(folder, 'targets'))
  .filter((file) => file.endsWith('.rs'))
  .map((file) => file.slice(0, -'.rs'.length))
  .sort();

/**
 * The coverage for libFuzzer: a counter at every edge, and the operands of comparisons. The flags are those of cargo-fuzz,
 * without its sanitizers, which need a nightly compiler. The crate has no `unsafe` code, so that findings are panics.
 */
const coverage = [
  '--cfg fuzzing',
  '-Cpasses=sancov-module',
  '-Cllvm-args=-sanitizer-coverage-level=4',
  '-Cllvm-args=-sanitizer-coverage-inline-8bit-counters',
  '-Cllvm-args=-sanitizer-coverage-pc-table',
  '-Cllvm-args=-sanitizer-coverage-trace-compares',
];

/** A thousand times the time that any input should take. */
const inputDeadline_s = 10;

const targetFolder = join(process.env['CARGO_TARGET_DIR'] ?? join(root, 'target'), 'fuzz');

/** An explicit triple keeps the flags away from build scripts and macros, which run in the compiler. */
async function hostTriple(): Promise<string> {
  const { stdout } = await runRust('rustc', ['-vV']);
  const host = /^host: (.+)$/m.exec(stdout)?.[1];
  if (host === undefined) throw new Failure('rustc does not say for which machine it compiles: `rustc -vV` has no line `host`.');
  return host;
}

export async function buildFuzzTargets(): Promise<void> {
  await ensureRustToolchain();
  await step('building the fuzz targets', async () => {
    const args = ['build', '--locked', '--release', '--bins', '--manifest-path', join(folder, 'Cargo.toml')];
    const places = ['--target-dir', targetFolder, '--target', await hostTriple()];
    const { ok, output } = await runRust('cargo', [...args, ...places], { env: { RUSTFLAGS: coverage.join(' ') } });
    if (ok) return;
    process.stderr.write(output);
    throw new Failure(whatToDo(output));
  });
}

function whatToDo(output: string): string {
  if (/is `?c\+\+`? installed|failed to find tool/.test(output)) {
    return 'The fuzzer needs a C++ compiler: install one (Debian, Ubuntu: `apt install g++`) and run the command again.';
  }
  if (/--locked was passed/.test(output)) {
    return "The crate's dependencies have changed: run `cargo update --workspace --manifest-path fuzz/Cargo.toml` and the command again.";
  }
  return "The fuzz targets could not be built: see the compiler's message above.";
}

export type FuzzRun = {
  /** The number of inputs. */
  inputs: number;
  found: boolean;
  /** The output of libFuzzer, with the input of a finding. */
  report: string;
};

/** Runs one built target. */
export async function fuzz(target: string, seconds: number): Promise<FuzzRun> {
  const [corpus, findings] = [join(folder, 'corpus', target), join(folder, 'findings', target)];
  await Promise.all([corpus, findings].map((made) => mkdir(made, { recursive: true })));
  const program = join(targetFolder, await hostTriple(), 'release', target);
  const settings = [`-max_total_time=${seconds}`, `-timeout=${inputDeadline_s}`, `-artifact_prefix=${findings}/`, '-print_final_stats=1'];
  // New inputs are kept in the first folder, the others are only read.
  const { ok, output } = await run(program, [...settings, corpus, join(folder, 'seeds', target)]);
  const inputs = Number(/^stat::number_of_executed_units:\s*(\d+)/m.exec(output)?.[1] ?? 0);
  return { inputs, found: !ok, report: withoutProgress(output) };
}

/** libFuzzer prints a line for every input with new coverage. */
function withoutProgress(output: string): string {
  return output
    .split('\n')
    .filter((line) => !/^(#\d+|INFO:|\tNEW_FUNC|stat::|"|#+ )/.test(line))
    .join('\n');
}

if (import.meta.main) {
  await runScript(async () => {
    const { values, positionals } = parseArgs({ options: { seconds: { type: 'string', default: '60' } }, allowPositionals: true });
    const seconds = Number(values.seconds);
    if (!Number.isInteger(seconds) || seconds < 1) throw new Failure(`"${values.seconds}" is no number of seconds: take 1 or more.`);
    const unknown = positionals.find((target) => !fuzzTargets.includes(target));
    if (unknown !== undefined) throw new Failure(`There is no fuzz target "${unknown}": take some of ${fuzzTargets.join(', ')}, or none of them for all.`);
    await buildFuzzTargets();

    const withFindings: string[] = [];
    for (const target of positionals.length > 0 ? positionals : fuzzTargets) {
      await step(`fuzzing ${target} for ${seconds} s`, async () => {
        const { inputs, found, report } = await fuzz(target, seconds);
        if (found) {
          withFindings.push(target);
          console.log(report);
        }
        console.log(`  ${inputs} inputs, ${found ? 'with a finding' : 'no finding'}`);
      });
    }
    if (withFindings.length > 0) {
      throw new Failure(
        `There are findings in ${withFindings.join(', ')}: the inputs are in fuzz/findings/. Fix them, and keep the inputs as seeds in fuzz/seeds/.`,
      );
    }
  });
}

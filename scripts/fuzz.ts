/**
 * `npm run fuzz`: gives everything that reads bytes of others bytes that nobody thought of, each target of fuzz/ for a
 * minute. `npm run fuzz -- --seconds 600 token` takes longer over one of them. It fails when something is found; what
 * was found stays in fuzz/findings/, and what was interesting in fuzz/corpus/, from where the next run goes on.
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

/** Every file of fuzz/targets is one. */
export const fuzzTargets = readdirSync(join(folder, 'targets'))
  .filter((file) => file.endsWith('.rs'))
  .map((file) => file.slice(0, -'.rs'.length))
  .sort();

/**
 * What libFuzzer steers by: a counter at every edge, and the operands of comparisons. The flags are those of cargo-fuzz,
 * which would set a sanitizer with them; those need a nightly compiler, the counters do not. The crate has no `unsafe`
 * code, so that a panic is what there is to find.
 */
const coverage = [
  '--cfg fuzzing',
  '-Cpasses=sancov-module',
  '-Cllvm-args=-sanitizer-coverage-level=4',
  '-Cllvm-args=-sanitizer-coverage-inline-8bit-counters',
  '-Cllvm-args=-sanitizer-coverage-pc-table',
  '-Cllvm-args=-sanitizer-coverage-trace-compares',
];

/** A second is a thousand times what any input should take. */
const inputDeadline_s = 10;

const targetFolder = join(process.env['CARGO_TARGET_DIR'] ?? join(root, 'target'), 'fuzz');

/** A triple of one's own keeps the flags away from build scripts and macros, which run in the compiler. */
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
  /** How many inputs were tried. */
  inputs: number;
  found: boolean;
  /** What libFuzzer said, with the input in it if something was found. */
  report: string;
};

/** Runs one target, which has been built. */
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

/** libFuzzer tells of every input that reached something new. */
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
        console.log(`  ${inputs} inputs, ${found ? 'and something was found' : 'nothing found'}`);
      });
    }
    if (withFindings.length > 0) {
      throw new Failure(
        `Something was found in ${withFindings.join(', ')}: the inputs are in fuzz/findings/. Mend it, and keep the input as a seed in fuzz/seeds/.`,
      );
    }
  });
}

/**
 * `npm run bench`: the cost of a request of this service, of a peer in TypeScript, and of the floors; bench/README.md describes
 * the measurement. Thirteen minutes; `npm run bench -- --quick` takes three. `npm run bench -- supabase` measures one host, and
 * `--only plain,stream` some measures: both keep no results. `--target NAME=FOLDER` also measures another build of this service,
 * `--rounds N` sets the number of rounds. `npm run bench -- counts` counts the calls in a generation, and `micro` times the pure
 * stages alone.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { counts } from '../bench/counts.ts';
import { use } from '../bench/load.ts';
import { bundlePeer, installPeer } from '../bench/peer_packages.ts';
import { picture } from '../bench/picture.ts';
import { resultsOf } from '../bench/results.ts';
import { measureNames, measuresOf, runAll } from '../bench/run.ts';
import { table } from '../bench/table.ts';
import { definitionsWith, type OtherBuild } from '../bench/targets.ts';
import { benchTargetFolder, buildUpstream } from '../bench/upstream.ts';
import { build } from './build.ts';
import { root } from './paths.ts';
import { runRust } from './run_program.ts';
import { ensureRustToolchain } from './rust_toolchain.ts';
import { Failure, runScript, step } from './steps.ts';

/** The share of a core above which other programs affect every wall-clock time. */
const BUSY_SHARE = 0.2;

const HOSTS = ['cloudflare', 'supabase'] as const;

const options = {
  quick: { type: 'boolean', default: false },
  target: { type: 'string', multiple: true, default: [] as string[] },
  only: { type: 'string', default: '' },
  rounds: { type: 'string' },
} as const;

await runScript(async () => {
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  if (positionals.length === 1 && positionals[0] === 'micro') return micro();
  const isCounts = positionals.length === 1 && positionals[0] === 'counts';
  const [name] = isCounts ? [] : positionals;
  const host = HOSTS.find((host) => host === name);
  if (positionals.length > 1 || name !== host) {
    throw new Failure(`There is no benchmark "${positionals.join(' ')}": take "cloudflare", "supabase", "counts" or "micro", or none for all that is measured over HTTP.`);
  }
  if (process.platform !== 'linux') throw new Failure('The benchmark reads CPU time from /proc, which only Linux has.');
  const hosts = host === undefined ? HOSTS : [host];
  const only = values.only.split(',').filter((word) => word !== '');
  const unknown = only.filter((word) => measuresOf({ hosts, only: [word] }).length === 0);
  if (unknown.length > 0) throw new Failure(`There is no measure "${unknown.join(', ')}": take some of ${measureNames(hosts).join(', ')}, or the part before a hyphen.`);
  const rounds = roundsOf(values.rounds ?? (values.quick ? '3' : '7'));
  const builds = values.target.map(otherBuild);
  await build();
  await step('building the upstream', buildUpstream);
  if (isCounts) return console.log(await counts(builds));
  await step("installing the peer's packages", installPeer);
  await step('bundling the peer', bundlePeer);
  const { rows } = await runAll({ rounds, quick: values.quick, hosts, only, builds });
  const names = builds.map(({ name }) => name);
  if (host === undefined && only.length === 0) await keep(values.quick ? 'quick' : 'latest', await resultsOf(rows, rounds, names), picture(rows));
  const columns = definitionsWith(builds).map(({ name }) => name);
  console.log(`\n${table(rows, columns, names)}\n`);
  for (const sentence of sentences()) console.log(sentence);
});

function roundsOf(text: string): number {
  const rounds = Number(text);
  if (Number.isInteger(rounds) && rounds > 0) return rounds;
  throw new Failure(`--rounds takes a number from 1, not "${text}".`);
}

function otherBuild(text: string): OtherBuild {
  const [, name, folder] = /^([\w-]+)=(.+)$/.exec(text) ?? [];
  if (name === undefined || folder === undefined) throw new Failure(`--target takes NAME=FOLDER, as in before=../before/build, not "${text}".`);
  if (definitionsWith([]).some((definition) => definition.name === name)) throw new Failure(`--target takes another name than "${name}", which is a target of every run.`);
  return { name, folder: resolve(folder) };
}

function sentences(): string[] {
  const percent = (share: number) => `${(share * 100).toFixed(0)} % of a core`;
  const own = (['upstream', 'client'] as const).map(
    (who) => `The ${who} took ${(use[who].cpu_ms / 1000).toFixed(1)} s of CPU, at most ${percent(use[who].share_max)} while a target was measured.`,
  );
  if (use.others.share < BUSY_SHARE) return own;
  return [...own, `Other programs took ${percent(use.others.share)} all the while: trust the CPU figures, not the times and the requests a second.`];
}

/** A quick run does not replace the figures of bench/README.md. */
async function keep(name: 'latest' | 'quick', results: object, drawn: string): Promise<void> {
  const folder = join(root, 'bench/results');
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, `${name}.json`), `${JSON.stringify(results, null, 2)}\n`);
  await writeFile(join(folder, `${name}.svg`), drawn);
}

async function micro(): Promise<void> {
  await ensureRustToolchain();
  const args = ['bench', '--locked', '--manifest-path', join(root, 'bench/micro/Cargo.toml'), '--target-dir', benchTargetFolder];
  const { ok } = await runRust('cargo', args, { show: 'live' });
  if (!ok) throw new Failure('The micro-benchmarks did not run: see above.');
}

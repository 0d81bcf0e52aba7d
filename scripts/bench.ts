/**
 * `npm run bench`: the cost of a request of this service, of a peer in TypeScript, and of the floor; bench/README.md describes
 * the measurement. Thirteen minutes; `npm run bench -- --quick` takes three. `npm run bench -- supabase` measures one host, and
 * keeps no results. `npm run bench -- micro` times the pure stages alone.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { use } from '../bench/load.ts';
import { bundlePeer, installPeer } from '../bench/peer_packages.ts';
import { picture } from '../bench/picture.ts';
import { resultsOf } from '../bench/results.ts';
import { runAll } from '../bench/run.ts';
import { table } from '../bench/table.ts';
import { benchTargetFolder, buildUpstream } from '../bench/upstream.ts';
import { build } from './build.ts';
import { root } from './paths.ts';
import { runRust } from './run_program.ts';
import { ensureRustToolchain } from './rust_toolchain.ts';
import { Failure, runScript, step } from './steps.ts';

/** The share of a core above which other programs affect every wall-clock time. */
const BUSY_SHARE = 0.2;

await runScript(async () => {
  const { values, positionals } = parseArgs({ options: { quick: { type: 'boolean', default: false } }, allowPositionals: true });
  if (positionals.length === 1 && positionals[0] === 'micro') return micro();
  const [host] = positionals;
  if (positionals.length > 1 || !(host === undefined || host === 'cloudflare' || host === 'supabase')) {
    throw new Failure(`There is no benchmark "${positionals.join(' ')}": take "cloudflare", "supabase" or "micro", or none for all that is measured over HTTP.`);
  }
  if (process.platform !== 'linux') throw new Failure('The benchmark reads CPU time from /proc, which only Linux has.');
  await build();
  await step('building the upstream', buildUpstream);
  await step("installing the peer's packages", installPeer);
  await step('bundling the peer', bundlePeer);
  const rounds = values.quick ? 3 : 7;
  const { rows } = await runAll(rounds, values.quick, host === undefined ? ['cloudflare', 'supabase'] : [host]);
  if (host === undefined) await keep(values.quick ? 'quick' : 'latest', await resultsOf(rows, rounds), picture(rows));
  console.log(`\n${table(rows)}\n`);
  for (const sentence of sentences()) console.log(sentence);
});

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

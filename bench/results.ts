/** A run as a document: bench/results/latest.json, the source of the picture and of comparisons with later runs. */
import { readFile } from 'node:fs/promises';
import { arch, availableParallelism, cpus, platform } from 'node:os';
import { npmPackage } from '../scripts/paths.ts';
import { judge, median, ratioOver, type Row } from './figures.ts';
import { use } from './load.ts';

/** `builds`: the names of the other builds of this service. */
export async function resultsOf(rows: Row[], rounds: number, builds: string[]): Promise<object> {
  const [workerd, deno] = await Promise.all([versionOf('workerd'), versionOf(`@deno/linux-${arch()}-glibc`)]);
  return {
    date: new Date().toISOString().slice(0, 10),
    machine: { cpu: cpus()[0]?.model, cores: availableParallelism(), platform: `${platform()} ${arch()}` },
    workerd,
    deno,
    node: process.versions.node,
    rounds,
    use,
    rows: rows.map((row) => ({ ...row, samples: summaries(row), ...judge(row), ...ratiosOver(builds, row) })),
  };
}

async function versionOf(npmName: string): Promise<string> {
  const { version } = JSON.parse(await readFile(npmPackage(npmName, 'package.json'), 'utf8')) as { version: string };
  return version;
}

function ratiosOver(builds: string[], { samples }: Row): object {
  if (builds.length === 0) return {};
  return { ratios: Object.fromEntries(builds.map((name) => [name, ratioOver(name, samples)])) };
}

function summaries({ samples }: Row): object {
  const summary = (measured: number[]) => ({ median: rounded(median(measured)), min: rounded(Math.min(...measured)), max: rounded(Math.max(...measured)) });
  return Object.fromEntries(Object.entries(samples).map(([name, measured]) => [name, summary(measured)]));
}

/** Rounds to four digits, more than a measurement has. */
const rounded = (value: number) => Number(value.toPrecision(4));

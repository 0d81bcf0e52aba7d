/** Counts what a sync generation does between JavaScript and Wasm and on the platform: `npm run bench -- counts`. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { root } from '../scripts/paths.ts';
import { send } from './client.ts';
import { createTraffic } from './traffic.ts';
import { definitionsWith, type Definition, type OtherBuild, startTarget } from './targets.ts';
import { startUpstream, type Upstream } from './upstream.ts';

const WARM_UP = 20;
/** Few enough that the write-ahead log is not reused: SQLite starts it again after 1000 pages. */
const GENERATIONS = 60;
/** A page and the header of its frame. */
const FRAME_BYTES = 4096 + 24;

type Totals = Record<string, number>;

/** Prints the calls in a generation, of this build and of others. */
export async function counts(builds: OtherBuild[]): Promise<string> {
  const names = ['ours', ...builds.map(({ name }) => name)];
  const columns: [string, Totals][] = [];
  for (const definition of definitionsWith(builds)) if (names.includes(definition.name)) columns.push([definition.name, await countsOf(definition)]);
  const kinds = [...new Set(columns.flatMap(([, totals]) => Object.keys(totals)))];
  const line = (head: string, cells: string[]) => [head.padEnd(24), ...cells.map((cell) => cell.padStart(10))].join(' ');
  return [line('in a sync generation', names), ...kinds.map((kind) => line(kind, columns.map(([, totals]) => (totals[kind] ?? 0).toFixed(1))))].join('\n');
}

async function countsOf(definition: Definition): Promise<Totals> {
  const counter = await readFile(join(root, 'bench/counts.js'), 'utf8');
  let upstream: Upstream | undefined;
  const traffic = await createTraffic(() => `${upstream?.url}/auth/v1`);
  upstream = await startUpstream(traffic.keySet);
  const instrumented: Definition = {
    ...definition,
    async script() {
      const script = await definition.script();
      const [entry, ...rest] = script.modules;
      return entry === undefined ? script : { ...script, modules: [{ ...entry, contents: `${counter}\n${entry.contents}` }, ...rest] };
    },
  };
  let latest: Totals = {};
  const target = await startTarget(instrumented, upstream.url, undefined, (line) => {
    if (line.startsWith('counts ')) latest = JSON.parse(line.slice('counts '.length)) as Totals;
  });
  try {
    const run = async (times: number): Promise<Totals> => {
      for (let time = 0; time < times; time += 1) {
        const { status, body } = await send(target.url, traffic.plain(traffic.users[0] ?? ''));
        if (status !== 201) throw new Error(`${definition.name} answers with ${status}: ${body}`);
      }
      return { ...latest, 'pages to the WAL': (await walBytes(target.storage)) / FRAME_BYTES };
    };
    const before = await run(WARM_UP);
    const after = await run(GENERATIONS);
    return Object.fromEntries(Object.entries(after).map(([kind, total]) => [kind, (total - (before[kind] ?? 0)) / GENERATIONS]));
  } finally {
    await target.close();
    await upstream.close();
  }
}

/** A commit appends its pages to the write-ahead log. */
async function walBytes(folder: string): Promise<number> {
  const files = (await readdir(folder, { recursive: true })).filter((file) => file.endsWith('-wal'));
  const sizes = await Promise.all(files.map(async (file) => (await stat(join(folder, file))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

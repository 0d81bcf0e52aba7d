// Runs the queries of operations/ in ClickHouse, whose dialect Analytics Engine has, on this machine (chdb, one process).
//
// Three things differ from the platform:
// - `NOW()` is replaced by a time of the virtual hour, and points after it are not visible.
// - `quantileExactWeighted` is replaced by an expression of arrays: the small build of chdb has no quantiles.
// - The points have the times that the test gives them, and no sampling: `_sample_interval` is 1, but where a test sets it.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { clickhousePython } from '../../scripts/clickhouse.ts';
import { COLUMNS, DATASET } from './sql_dialect.ts';

export type Row = Record<string, string | number>;

/** A data point with its time in seconds since 1970. */
export type TimedPoint = { time_s: number; blobs: readonly string[]; doubles: readonly number[]; sample_interval?: number };

export type ClickHouse = {
  /** Replaces all points. */
  load(points: readonly TimedPoint[]): Promise<void>;
  /** Runs a query of the platform's dialect at that time. */
  query(sql: string, now_s: number): Promise<Row[]>;
  close(): Promise<void>;
};

export async function startClickHouse(): Promise<ClickHouse> {
  const child = spawn(clickhousePython, [join(import.meta.dirname, 'clickhouse.py')], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  let last: Promise<unknown> = Promise.resolve();

  /** One query at a time: a reply is the next line. */
  function run(sql: string): Promise<Row[]> {
    const reply = last.then(async () => {
      child.stdin.write(`${JSON.stringify({ sql })}\n`);
      const { value, done } = await lines.next();
      if (done) throw new Error('the ClickHouse process has ended');
      const { rows, error } = JSON.parse(value) as { rows?: Row[]; error?: string };
      if (rows === undefined) throw new Error(`${error}\nin ${sql}`);
      return rows;
    });
    last = reply.catch(() => {});
    return reply;
  }

  const types = COLUMNS.map((column) => `${column} ${typeOf(column)}`);
  await run(`CREATE TABLE ${DATASET} (${types.join(', ')}) ENGINE = Memory`);
  return {
    async load(points) {
      await run(`TRUNCATE TABLE ${DATASET}`);
      const rows = points.map((point) => `(${COLUMNS.map((column) => valueOf(point, column)).join(',')})`);
      if (rows.length > 0) await run(`INSERT INTO ${DATASET} VALUES ${rows.join(',')}`);
    },
    query: (sql, now_s) => run(shimmed(sql, now_s)),
    async close() {
      child.stdin.end();
      if (child.exitCode === null) await once(child, 'exit');
    },
  };
}

/** The query with the clock and the quantiles replaced. */
export function shimmed(sql: string, now_s: number): string {
  return sql
    .replaceAll(`FROM ${DATASET}`, `FROM (SELECT * FROM ${DATASET} WHERE timestamp <= NOW())`)
    .replace(/\bnow\(\)/gi, `toDateTime(${now_s})`)
    .replace(/quantileExactWeighted\(([\d.]+)\)\(([^(),]+), ([^(),]+)\)/g, (_, level, value, weight) => {
      // ClickHouse's definition: the least value up to which the weights reach that part of their sum.
      const sorted = `arraySort(arrayFlatten(groupArray(arrayWithConstant(${weight}, ${value}))))`;
      return `arrayElement(${sorted}, toUInt64(greatest(1, ceil(${level} * sum(${weight})))))`;
    });
}

function typeOf(column: string): string {
  if (column === 'timestamp') return 'DateTime';
  if (column === '_sample_interval') return 'UInt32';
  return column.startsWith('double') ? 'Float64' : 'String';
}

function valueOf({ time_s, blobs, doubles, sample_interval = 1 }: TimedPoint, column: string): string {
  if (column === 'timestamp') return String(Math.floor(time_s));
  if (column === '_sample_interval') return String(sample_interval);
  if (column === 'index1') return quoted(blobs[0] ?? '');
  const place = Number(/\d+$/.exec(column)?.[0]) - 1;
  return column.startsWith('double') ? String(doubles[place] ?? 0) : quoted(blobs[place] ?? '');
}

const quoted = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

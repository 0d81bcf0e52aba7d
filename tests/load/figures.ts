// Prints the figures of a load run. They describe this machine on this day; no test compares them.

import { readFile } from 'node:fs/promises';
import { word } from './requests.ts';
import type { Outcome } from './run.ts';

/** The CPU time and memory of processes. */
export type ProcessFigures = { cpu_s: number; rss_mb: number };

/** Clock ticks of /proc in a second: 100 on every Linux that Node runs on (`getconf CLK_TCK`). */
const TICKS_PER_S = 100;

/** The sums of these processes. */
export async function processFigures(pids: number[]): Promise<ProcessFigures> {
  const all = await Promise.all(pids.map(figuresOf));
  const sum = (name: keyof ProcessFigures) => all.reduce((total, figures) => total + figures[name], 0);
  return { cpu_s: sum('cpu_s'), rss_mb: sum('rss_mb') };
}

/** From /proc/pid/stat and /proc/pid/status (proc(5)). */
async function figuresOf(pid: number): Promise<ProcessFigures> {
  const [stat, status] = await Promise.all(['stat', 'status'].map((file) => readFile(`/proc/${pid}/${file}`, 'utf8')));
  // The name is in parentheses and may contain spaces; utime and stime are the 12th and 13th fields after it.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ') ?? [];
  const rss_kb = status?.match(/^VmRSS:\s+(\d+) kB$/m)?.[1];
  return {
    cpu_s: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_S,
    rss_mb: Number(rss_kb) / 1024,
  };
}

/** Formats the figures as a table. */
export function printed({ program, answered, duration_ms, before, after, modelCalls, rows }: Outcome): string {
  const generated = rows.sessions.length;
  const cpu_s = after.cpu_s - before.cpu_s;
  const lines = [
    `${answered.length} requests in ${(duration_ms / 1000).toFixed(1)} s: ${(answered.length / (duration_ms / 1000)).toFixed(0)} in a second`,
    `${generated} generations, ${modelCalls} model calls, ${rows.candidates.length} candidates, ${rows.events.length} events`,
    `${program}: ${cpu_s.toFixed(1)} s of CPU (${((cpu_s / answered.length) * 1000).toFixed(1)} ms a request), ` +
      `${before.rss_mb.toFixed(0)} MB before, ${after.rss_mb.toFixed(0)} MB after`,
    '',
    `${'kind'.padEnd(18)}${['count', 'p50 ms', 'p99 ms'].map((head) => head.padStart(8)).join('')}  answers`,
  ];
  for (const [kind, ofKind] of Map.groupBy(answered, (one) => one.kind)) {
    const took_ms = ofKind.map(({ sent_ms, answered_ms }) => answered_ms - sent_ms).sort((a, b) => a - b);
    const figures = [String(ofKind.length), percentile(took_ms, 50), percentile(took_ms, 99)];
    const words = [...Map.groupBy(ofKind, ({ answer }) => word(answer))].map(([outcome, those]) => `${outcome} × ${those.length}`);
    lines.push(`${kind.padEnd(18)}${figures.map((figure) => figure.padStart(8)).join('')}  ${words.sort().join(', ')}`);
  }
  return lines.join('\n');
}

/** Nearest rank. */
function percentile(sorted: number[], percent: number): string {
  return (sorted[Math.max(0, Math.ceil((sorted.length * percent) / 100) - 1)] ?? Number.NaN).toFixed(0);
}

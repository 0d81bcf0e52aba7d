/** What was measured: rows of samples by target, and how they are read. */
import type { TargetName } from './targets.ts';

/** What a row has to reach: ours over that target, or ours itself. */
export type Goal = { over: 'peer' | 'floor' | 'nothing'; at: number; is: 'at most' | 'at least' };

export type RowHead = {
  /** What was done, as in "plain generation, 8 cards". */
  work: string;
  /** What was measured of it. */
  figure: string;
  unit: string;
  goal?: Goal;
};

export type Row = RowHead & { samples: Partial<Record<TargetName, number[]>> };

export class Figures {
  readonly rows: Row[] = [];

  /** One sample; a row is where its first sample put it. */
  add(head: RowHead, target: TargetName, value: number): void {
    let row = this.rows.find(({ work, figure }) => work === head.work && figure === head.figure);
    if (row === undefined) this.rows.push((row = { ...head, samples: {} }));
    (row.samples[target] ??= []).push(value);
  }
}

/** The value below which that part of the samples lies. */
export function quantile(samples: number[], part: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? Number.NaN;
}

export function median(samples: number[]): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [below = Number.NaN, above = Number.NaN] = [sorted[Math.ceil(sorted.length / 2) - 1], sorted[middle]];
  return (below + above) / 2;
}

/** What a row comes to; nothing where a difference came out below zero, because other programs had the machine. */
export type Verdict = { ratio?: number; reached?: boolean };

export function judge({ samples, goal }: Row): Verdict {
  const other = goal?.over === 'floor' ? samples.floor : samples.peer;
  if (samples.ours === undefined || other === undefined) return {};
  const [own, divisor] = [median(samples.ours), goal?.over === 'nothing' ? 1 : median(other)];
  if (own <= 0 || divisor <= 0) return {};
  const ratio = own / divisor;
  if (goal === undefined) return { ratio };
  return { ratio, reached: goal.is === 'at most' ? ratio <= goal.at : ratio >= goal.at };
}

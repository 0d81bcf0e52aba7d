/** The measurements: rows of samples by target, and their statistics. */
import type { TargetName } from './targets.ts';

/** The goal of a row: for the ratio of ours to that target, or for ours itself. */
export type Goal = { over: 'peer' | 'floor' | 'nothing'; at: number; is: 'at most' | 'at least' };

export type RowHead = {
  /** The workload, as in "plain generation, 8 cards". */
  work: string;
  /** The measured quantity. */
  figure: string;
  unit: string;
  goal?: Goal;
};

export type Row = RowHead & { samples: Partial<Record<TargetName, number[]>> };

export class Figures {
  readonly rows: Row[] = [];

  /** Adds a sample; rows are in the order of their first samples. */
  add(head: RowHead, target: TargetName, value: number): void {
    let row = this.rows.find(({ work, figure }) => work === head.work && figure === head.figure);
    if (row === undefined) this.rows.push((row = { ...head, samples: {} }));
    (row.samples[target] ??= []).push(value);
  }
}

/** The quantile of the samples. */
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

/** The result of a row; undefined where other programs made a difference negative. */
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

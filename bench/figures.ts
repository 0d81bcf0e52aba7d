/** The measurements: rows of samples by target, and their statistics. */

/** The goal of a row: for the ratio of ours to that target, or for ours itself. */
export type Goal = { over: 'peer' | 'floor' | 'floor-with-promises' | 'nothing'; at: number; is: 'at most' | 'at least' };

export type RowHead = {
  /** The workload, as in "plain generation, 8 cards". */
  work: string;
  /** The measured quantity. */
  figure: string;
  unit: string;
  goal?: Goal;
};

/** The samples by the names of the targets. */
export type Row = RowHead & { samples: Record<string, number[]> };

export class Figures {
  readonly rows: Row[] = [];

  /** Adds a sample; rows are in the order of their first samples. */
  add(head: RowHead, target: string, value: number): void {
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

/** The ratio of ours to another target. */
export function ratioOver(name: string, samples: Row['samples']): number | undefined {
  const [own, divisor] = [samples['ours'], samples[name]].map((measured) => median(measured ?? []));
  return own !== undefined && divisor !== undefined && own > 0 && divisor > 0 ? own / divisor : undefined;
}

export function judge({ samples, goal }: Row): Verdict {
  const ratio = goal?.over === 'nothing' ? median(samples['ours'] ?? []) : ratioOver(goal?.over ?? 'peer', samples);
  if (ratio === undefined || !(ratio > 0)) return {};
  if (goal === undefined) return { ratio };
  return { ratio, reached: goal.is === 'at most' ? ratio <= goal.at : ratio >= goal.at };
}

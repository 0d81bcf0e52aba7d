/** What every measure gets. */
import type { Traffic } from './traffic.ts';
import type { Figures } from './figures.ts';
import type { Target, TargetName } from './targets.ts';
import type { Upstream } from './upstream.ts';

export type Bench = {
  upstream: Upstream;
  traffic: Traffic;
  figures: Figures;
  /** The short form: fewer requests a round. */
  quick: boolean;
  targets: Record<TargetName, Target>;
  /** The same with a limit that is reached by the first request of a user. */
  limited: Record<Contender, Target>;
};

/** The targets that do everything; the other floors differ in how they read alone. */
export const CONTENDERS = ['ours', 'peer', 'floor'] as const;
export type Contender = (typeof CONTENDERS)[number];

export type Measure = {
  title: string;
  /** In every round, with other measures between; or once. */
  when: 'each round' | 'once';
  run(bench: Bench, round: number): Promise<void>;
};

/** Every round begins with another target, so that none always has the machine as another left it. */
export function inTurn<T>(names: readonly T[], round: number): T[] {
  const first = round % names.length;
  return [...names.slice(first), ...names.slice(0, first)];
}

/** The common arguments of all measures. */
import type { Traffic } from './traffic.ts';
import type { FunctionName } from './edge_functions.ts';
import type { Figures } from './figures.ts';
import type { Target, TargetName } from './targets.ts';
import type { Upstream } from './upstream.ts';

export type Bench = {
  upstream: Upstream;
  traffic: Traffic;
  figures: Figures;
  /** Fewer requests a round. */
  quick: boolean;
  targets: Record<TargetName, Target>;
  /** The targets with a limit that the first request of a user reaches. */
  limited: Record<Contender, Target>;
  /** The Edge Functions, without and with such a limit. */
  functions: Record<FunctionName, Target>;
  limitedFunctions: Record<FunctionName, Target>;
};

/** The complete targets; the other floors differ only in how they read the model's answer. */
export const CONTENDERS = ['ours', 'peer', 'floor'] as const;
export type Contender = (typeof CONTENDERS)[number];

export type Measure = {
  title: string;
  /** In every round, between other measures; or once. */
  when: 'each round' | 'once';
  run(bench: Bench, round: number): Promise<void>;
};

/** Every round begins with another target, so that no target always follows the same one. */
export function inTurn<T>(names: readonly T[], round: number): T[] {
  const first = round % names.length;
  return [...names.slice(first), ...names.slice(0, first)];
}

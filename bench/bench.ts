/** The common arguments of all measures. */
import type { Traffic } from './traffic.ts';
import type { FunctionName } from './edge_functions.ts';
import type { Figures } from './figures.ts';
import type { Definition, Target } from './targets.ts';
import type { Upstream } from './upstream.ts';

export type Bench = {
  upstream: Upstream;
  traffic: Traffic;
  figures: Figures;
  /** Fewer requests a round. */
  quick: boolean;
  contenders: Contender[];
  /** The Edge Functions, without and with such a limit. */
  functions: Record<FunctionName, Target>;
  limitedFunctions: Record<FunctionName, Target>;
};

/** A target on Cloudflare. */
export type Contender = Definition & {
  target: Target;
  /** The same, with a limit that the first request of a user reaches. */
  limited: Target;
};

export type Measure = {
  /** The word that `--only` takes; its part before a hyphen selects all such measures. */
  name: string;
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

// Reproducible random choices: the same seed makes the same ones. (mulberry32; not for secrets.)

export type Choices = {
  /** From 0 to below 1. */
  fraction(): number;
  /** A whole number from `min` to `max`, both included. */
  between(min: number, max: number): number;
  /** True with that probability, 0 to 1. */
  chance(probability: number): boolean;
  /** Picks one by weight. */
  pick<T>(weighted: [weight: number, item: T][]): T;
};

export function seededChoices(seed: number): Choices {
  let state = seed >>> 0;
  const fraction = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    fraction,
    between: (min, max) => min + Math.floor(fraction() * (max - min + 1)),
    chance: (probability) => fraction() < probability,
    pick(weighted) {
      let left = fraction() * weighted.reduce((sum, [weight]) => sum + weight, 0);
      const picked = weighted.find(([weight]) => (left -= weight) < 0) ?? weighted.at(-1);
      if (picked === undefined) throw new Error('there is nothing to pick from');
      return picked[1];
    },
  };
}

/** The seed of the environment, or a new one. */
export function seedFrom(variable: string): number {
  const given = process.env[variable];
  return given === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(given);
}

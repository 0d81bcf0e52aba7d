/** Measures the upload, which every cold start reads. */
import type { Measure } from '../bench.ts';
import { gzippedKb } from '../targets.ts';

export const scriptSize: Measure = {
  name: 'script',
  title: 'script size',
  when: 'once',
  async run({ figures, contenders }) {
    for (const contender of contenders) {
      const goal = { over: 'peer', at: 1, is: 'at most' } as const;
      figures.add({ work: 'script', figure: 'size, gzipped', unit: 'kB', goal }, contender.name, await gzippedKb(contender));
    }
  },
};

/** Measures the upload, which every cold start reads. */
import { CONTENDERS, type Measure } from '../bench.ts';
import { gzippedKb } from '../targets.ts';

export const scriptSize: Measure = {
  title: 'script size',
  when: 'once',
  async run({ figures }) {
    for (const name of CONTENDERS) {
      const goal = { over: 'peer', at: 0.7, is: 'at most' } as const;
      figures.add({ work: 'script', figure: 'size, gzipped', unit: 'kB', goal }, name, await gzippedKb(name));
    }
  },
};

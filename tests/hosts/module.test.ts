// The upload size: a Worker on the free plan has to start within a second, and a cold start reads the whole module.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { moduleFiles } from './workerd.ts';

/** An empty workers-rs Worker has 66 KB. The second host adds 35 KB to what was 297 KB. The points of generations and jobs add 1.6 KB, the spans
 * 0.4 KB, the limit in dollars 6 KB, the sources of candidates 23 KB; code without a use, serde's readers and the
 * standard library's search were 19 KB. */
const MODULE_BYTES_MAX = 274_000;

const gzipped = async () => (await moduleFiles()).map((file) => gzipSync(file, { level: 9 }).length);

it('the module has at most 274 KB, gzipped', async () => {
  const sizes = await gzipped();
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  assert.ok(bytes <= MODULE_BYTES_MAX, `index.js and index_bg.wasm have ${sizes.join(' + ')} = ${bytes} bytes`);
});

it('the README states its size, to a hundredth', async () => {
  const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');
  const stated_kb = Number(/gzipped: \*\*(\d+) KB\*\*/.exec(readme)?.[1]);
  const bytes = (await gzipped()).reduce((sum, size) => sum + size, 0);
  assert.ok(Math.abs(bytes / 1000 - stated_kb) <= stated_kb / 100, `README.md says ${stated_kb} KB, it has ${bytes} bytes`);
});

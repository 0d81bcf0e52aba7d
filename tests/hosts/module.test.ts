// The size of what is uploaded: a Worker on the free plan has to start within a second, and a cold start reads it all.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { moduleFiles } from './workerd.ts';

/** An empty workers-rs Worker has 66 KB. */
const MODULE_BYTES_MAX = 250_000;

it('the module has at most 250 KB, gzipped', async () => {
  const sizes = (await moduleFiles()).map((file) => gzipSync(file, { level: 9 }).length);
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  assert.ok(bytes <= MODULE_BYTES_MAX, `index.js and index_bg.wasm have ${sizes.join(' + ')} = ${bytes} bytes`);
});

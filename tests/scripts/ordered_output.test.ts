// The output of lanes that run side by side.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { OrderedOutput } from '../../scripts/ordered_output.ts';

it('the output of lanes is shown one lane after the other', () => {
  let shown = '';
  const output = new OrderedOutput((text) => void (shown += text));
  output.write(2, 'c1 ');
  output.write(0, 'a1 ');
  output.write(1, 'b1 ');
  assert.equal(shown, 'a1 ', 'the first lane is live');
  output.end(2);
  output.write(0, 'a2 ');
  output.end(0);
  assert.equal(shown, 'a1 a2 b1 ', 'the next lane follows the end of the first');
  output.write(1, 'b2 ');
  assert.equal(shown, 'a1 a2 b1 b2 ', 'the next lane is live then');
  output.end(1);
  assert.equal(shown, 'a1 a2 b1 b2 c1 ', 'a lane that ended before its turn is shown whole');
});

// wrangler.toml has numbers and booleans too: one without quotes must not pass for a variable that is not set.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { ask } from '../service/service.ts';
import { startAfter } from './workerd.ts';

const unquoted = (variables: Record<string, unknown>) => startAfter('', variables as Record<string, string>);

it('a number without quotes is read, and refused when it makes no sense', async () => {
  const service = await unquoted({ AI_MAX_ATTEMPTS: 11, MAX_CANDIDATES: 5, AI_FALLBACK: true, LOG_LEVEL: {} });
  try {
    const { status, body } = await ask(service, 'GET', '/health/ready');
    assert.equal(status, 503);
    const wrong = (body.checks as { detail: string }[]).map(({ detail }) => detail.split(' ')[0]);
    assert.deepEqual(wrong, ['AI_MAX_ATTEMPTS', 'LOG_LEVEL']);
  } finally {
    await service.close();
  }
});

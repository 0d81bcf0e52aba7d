// wrangler.toml has numbers and booleans too: one without quotes must not pass for a variable that is not set.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { ask, create, eventually, expectProblem, signIn } from '../service/service.ts';
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

it('an API key that can be guessed is refused as the key of the hashes, unless there is a secret', async () => {
  const service = await startAfter('', { OPENROUTER_API_KEY: 'ollama' });
  try {
    const { status, body } = await ask(service, 'GET', '/health/ready');
    assert.equal(status, 503);
    const [check] = body.checks as { name: string; detail: string }[];
    assert.deepEqual([check?.name, check?.detail.split(' ')[0]], ['configuration', 'SERVICE_SECRET']);
    assert.match(check?.detail ?? '', /OPENROUTER_API_KEY.*32.*openssl rand -hex 32/);
    const { token } = await signIn(service);
    expectProblem(await create(service, token), 500, 'internal');
    assert.equal(service.world.openrouter.requests.total, 0);
    await eventually('the log says so', () => service.logs.find((line) => line.includes('"configuration"') && line.includes('SERVICE_SECRET')));
  } finally {
    await service.close();
  }
});

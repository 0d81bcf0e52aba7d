// The idempotency key of a text: charged once in all tabs, again only on request.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attemptFor, type SharedStorage } from '../../examples/astro/src/ai-sessions/attempts.ts';

const request = { input_text: 'A text.', model: 'a/one' };
const noon = Date.UTC(2026, 10, 24, 12);
const hours = (n: number) => noon + n * 3_600_000;

function storage(): SharedStorage {
  const items = new Map<string, string>();
  return { getItem: (name) => items.get(name) ?? null, setItem: (name, value) => void items.set(name, value) };
}

test('two tabs with the same text have the same key', async () => {
  const shared = storage();
  const [one, other] = await Promise.all([attemptFor(shared, 'u', request, noon), attemptFor(shared, 'u', request, noon)]);
  assert.equal(one.key, other.key);
  assert.ok((await attemptFor(shared, 'u', request, noon)).known);
  assert.equal((await attemptFor(shared, 'u', request, hours(23))).key, one.key);
  assert.match(one.key, /^[\w-]{43}$/);
});

test('the key is that of the sanitized text', async () => {
  const shared = storage();
  const one = await attemptFor(shared, 'u', request, noon);
  assert.equal((await attemptFor(shared, 'u', { ...request, input_text: ' A text.\r\n' }, noon)).key, one.key);
});

test('another user, text or model has another key', async () => {
  const shared = storage();
  const keys = [
    await attemptFor(shared, 'u', request, noon),
    await attemptFor(shared, 'v', request, noon),
    await attemptFor(shared, 'u', { ...request, input_text: 'B text.' }, noon),
    await attemptFor(shared, 'u', { ...request, model: 'b/two' }, noon),
  ].map(({ key }) => key);
  assert.equal(new Set(keys).size, keys.length);
});

test('two tabs that request new cards have the same next attempt', async () => {
  const shared = storage();
  const shown = await attemptFor(shared, 'u', request, noon);
  const one = await attemptFor(shared, 'u', request, noon, shown);
  const other = await attemptFor(shared, 'u', request, noon, shown);
  assert.deepEqual([one.number, one.known], [1, false]);
  assert.notEqual(one.key, shown.key);
  assert.equal(other.key, one.key);
  assert.equal((await attemptFor(shared, 'u', request, noon, one)).number, 2);
  // A new tab has the latest attempt.
  assert.equal((await attemptFor(shared, 'u', request, noon)).number, 2);
});

test('another text does not advance the attempt', async () => {
  const shared = storage();
  const shown = await attemptFor(shared, 'u', { ...request, input_text: 'B text.' }, noon);
  assert.equal((await attemptFor(shared, 'u', request, noon, shown)).number, 0);
});

test('no key is reused after its lifetime', async () => {
  const shared = storage();
  const first = await attemptFor(shared, 'u', request, noon);
  const second = await attemptFor(shared, 'u', request, hours(20), first);
  assert.equal((await attemptFor(shared, 'u', request, hours(43))).key, second.key, 'the lifetime starts at the latest attempt');
  const later = await attemptFor(shared, 'u', request, hours(44));
  assert.equal(later.number, 0);
  assert.ok(![first.key, second.key].includes(later.key));
});

test('a broken, full or emptied storage costs nothing', async () => {
  const first = await attemptFor(storage(), 'u', request, noon);
  const broken: SharedStorage = { getItem: () => '{', setItem: () => { throw new DOMException('full', 'QuotaExceededError'); } };
  assert.equal((await attemptFor(broken, 'u', request, hours(1))).key, first.key);
});

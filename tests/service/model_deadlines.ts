// The model takes too long: silence, a slow drip, endless comments. Complete candidates are kept, no client waits longer
// than configured, and the connection is closed, because tokens that are not sent are not billed.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { answer, httpError, onlyComments, raw, silence, slowDrip } from '../support/model_behaviour.ts';
import { AT_ONCE, expectCandidates, expectFailed, expectConnectionClosed, meeting } from './model_failures.ts';
import type { StartService } from './service.ts';

export function tests(start: StartService): void {
  describe('an idle timeout of 500 ms', { concurrency: AT_ONCE }, () => silences(start));
  describe('a total timeout of 1500 ms', { concurrency: AT_ONCE }, () => deadlines(start));
  describe('a total timeout of 2500 ms with three attempts', { concurrency: AT_ONCE }, () => attemptsInTime(start));
}

function silences(start: StartService): void {
  // A total timeout that a loaded machine does not reach before the idle timeout.
  const meet = meeting(start, { AI_IDLE_TIMEOUT_MS: '500', AI_TIMEOUT_MS: '20000', AI_MAX_ATTEMPTS: '2' });

  for (const [name, behaviour] of [
    ['before the headers', silence({ headers: false })],
    ['after the headers', silence({ headers: true })],
    ['after comments', answer({ whole_candidates: 0, instead_of_end: 'silence' })],
    ['in the first candidate', answer({ whole_candidates: 0, plus_chars: 10, instead_of_end: 'silence' })],
    ['in a plain completion', raw('{"choices":[', { content_type: 'application/json', then: 'silence' })],
  ] as const) {
    it(`silence ${name} is ai_timeout, retried on new connections`, async () => {
      const began_ms = performance.now();
      const met = await meet(behaviour);
      const took_ms = performance.now() - began_ms;
      assert.ok(took_ms >= 990 && took_ms < 15_000, `${took_ms} ms`);
      await expectFailed(met, 'ai_timeout', 2);
      for (const attempt of [1, 2]) await expectConnectionClosed(met, attempt);
    });
  }

  it('silence after candidates keeps them without another call', async () => {
    const met = await meet(answer({ whole_candidates: 3, plus_chars: 10, instead_of_end: 'silence' }));
    await expectCandidates(met, { partial: true, candidates: 3 });
    await expectConnectionClosed(met);
  });

  it('silence before the first candidate is cured by a good retry', async () => {
    await expectCandidates(await meet(silence({ headers: true }), answer()), { partial: false, candidates: 20, attempts: 2 });
  });

  it('silence after the headers of an error is that error', async () => {
    const met = await meet(raw('{"error":', { status: 402, content_type: 'application/json', then: 'silence' }));
    await expectFailed(met, 'ai_misconfigured', 1);
    await expectConnectionClosed(met);
  });

  it('silence after the last candidate is a complete session', async () => {
    const met = await meet(answer({ instead_of_end: 'silence' }));
    await expectCandidates(met, { partial: false, candidates: 20 });
    await expectConnectionClosed(met);
  });

  it('a slow answer is not silence', async () => {
    await expectCandidates(await meet(slowDrip(40, 200)), { partial: false, candidates: 20 });
  });
}

function deadlines(start: StartService): void {
  const meet = meeting(start, { AI_TIMEOUT_MS: '1500' });

  for (const [name, behaviour] of [
    ['comments alone', onlyComments()],
    ['silence', silence({ headers: true })],
    ['a drip without a candidate', answer({ content: [...'{"candidates":[{"front":"a'.padEnd(200)], pause_ms: 50 })],
  ] as const) {
    it(`${name} is ai_timeout at the deadline and its connection is closed`, async () => {
      const began_ms = performance.now();
      const met = await meet(behaviour);
      assert.ok(performance.now() - began_ms >= 1490);
      await expectFailed(met, 'ai_timeout', 1);
      await expectConnectionClosed(met);
    });
  }

  for (const [name, instead_of_end] of [['comments', 'comments'], ['silence', 'silence']] as const) {
    it(`${name} after candidates keeps the complete ones`, async () => {
      const met = await meet(answer({ whole_candidates: 3, plus_chars: 10, instead_of_end }));
      await expectCandidates(met, { partial: true, candidates: 3 });
      await expectConnectionClosed(met);
    });
  }

  it('a drip past the deadline keeps the complete candidates', async () => {
    const drip = ['{"candidates":[', ...Array.from({ length: 90 }, (_, n) => `{"front":"${n}","back":"b","prompt":"p"},`.padEnd(60))];
    const met = await meet(answer({ content: drip, pause_ms: 200 }));
    const { partial, candidates } = met.answer.body;
    assert.equal(partial, true, met.answer.text);
    assert.ok(candidates.length >= 1 && candidates.length <= 7, `${candidates.length} candidates`);
    await expectCandidates(met, { partial: true, candidates: candidates.length });
    await expectConnectionClosed(met);
  });
}

function attemptsInTime(start: StartService): void {
  const meet = meeting(start, { AI_TIMEOUT_MS: '2500' });

  it('a Retry-After beyond the deadline is forwarded', async () => {
    const failed = await meet(httpError(503, { retry_after_s: 2 }));
    await expectFailed(failed, 'ai_unavailable', 1);
    assert.equal(failed.answer.headers.get('retry-after'), '2');
  });

  it('the deadline ends the last attempt whenever that began', async () => {
    const began_ms = performance.now();
    const met = await meet(httpError(503, { retry_after_s: 1 }), silence({ headers: true }));
    assert.ok(performance.now() - began_ms >= 2490);
    await expectFailed(met, 'ai_timeout', 2);
    await expectConnectionClosed(met, 2);
  });
}

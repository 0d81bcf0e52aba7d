// `npm run dev` restarts wrangler when it ends: here with programs that end on command, and a settable clock.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { keepRunning, type Program, RESTARTS_MAX, RESTARTS_WINDOW_MS } from '../../scripts/restarts.ts';
import { Failure } from '../../scripts/steps.ts';
import { within } from '../support/within.ts';

/** A program that a test ends. */
class FakeProgram implements Program {
  stopped = false;
  readonly #ended = Promise.withResolvers<void>();
  readonly ended = this.#ended.promise;
  readonly #isUp: Promise<void>;

  constructor(isUp: Promise<void> = Promise.resolve()) {
    this.#isUp = isUp;
  }

  ready() {
    return this.#isUp;
  }

  end() {
    this.#ended.resolve();
  }

  async stop() {
    this.stopped = true;
    this.end();
  }
}

/** All launches, and the next one as an event. */
class Launches {
  readonly all: FakeProgram[] = [];
  /** Whether the n-th program comes up; by default all do. */
  isUp: (n: number) => Promise<void> = () => Promise.resolve();
  now_ms = 0;
  readonly log: string[] = [];
  readonly #arrivals: PromiseWithResolvers<FakeProgram>[] = [];

  launch = async () => {
    const program = new FakeProgram(this.isUp(this.all.length));
    this.all.push(program);
    this.#arrival(this.all.length).resolve(program);
    return program;
  };

  nth(n: number) {
    return within(this.#arrival(n).promise, `launch ${n}`);
  }

  keep(first: FakeProgram) {
    return keepRunning('the program', first, this.launch, (line) => this.log.push(line), () => this.now_ms);
  }

  #arrival(n: number) {
    return (this.#arrivals[n] ??= Promise.withResolvers());
  }
}

describe('a program that is kept running', () => {
  it('a program is launched again each time it ends, up to the limit', async () => {
    const launches = new Launches();
    const first = new FakeProgram();
    const kept = launches.keep(first);
    first.end();
    for (let n = 1; n <= RESTARTS_MAX; n += 1) (await launches.nth(n)).end();
    await assert.rejects(within(kept.finished, 'giving up'), (error) => error instanceof Failure && error.message.includes(`${RESTARTS_MAX + 1} times`));
    assert.equal(launches.all.length, RESTARTS_MAX);
    assert.equal(launches.log.filter((line) => line.includes('has ended')).length, RESTARTS_MAX);
  });

  for (const [name, step_ms, survives] of [
    ['a restart that has just left the window does not count', RESTARTS_WINDOW_MS / RESTARTS_MAX, true],
    ['a restart in the last millisecond of the window counts', (RESTARTS_WINDOW_MS - 1) / RESTARTS_MAX, false],
  ] as const) {
    it(name, async () => {
      const launches = new Launches();
      let program = new FakeProgram();
      const kept = launches.keep(program);
      for (let n = 1; n <= RESTARTS_MAX; n += 1) {
        program.end();
        program = await launches.nth(n);
        launches.now_ms += step_ms;
      }
      program.end();
      if (survives) {
        await launches.nth(RESTARTS_MAX + 1);
        await kept.stop();
      } else await assert.rejects(within(kept.finished, 'giving up'), Failure);
    });
  }

  it('a program that never comes up is abandoned and stopped', async () => {
    const launches = new Launches();
    launches.isUp = () => Promise.reject(new Failure('it did not start'));
    const first = new FakeProgram();
    const kept = launches.keep(first);
    first.end();
    await assert.rejects(within(kept.finished, 'giving up'), Failure);
    assert.deepEqual(launches.all.map(({ stopped }) => stopped), Array(RESTARTS_MAX).fill(true));
    assert.ok(launches.log.includes('it did not start'));
  });

  it('a stopped program is not launched again', async () => {
    const launches = new Launches();
    const first = new FakeProgram();
    const kept = launches.keep(first);
    await within(kept.stop(), 'stop');
    await within(kept.finished, 'the end');
    assert.deepEqual([first.stopped, launches.all.length], [true, 0]);
  });

  it('a program stopped during a restart leaves nothing behind', async () => {
    const launches = new Launches();
    const up = Promise.withResolvers<void>();
    launches.isUp = () => up.promise;
    const first = new FakeProgram();
    const kept = launches.keep(first);
    first.end();
    const second = await launches.nth(1);
    const stopped = kept.stop();
    up.reject(new Failure('ended before it was up'));
    await within(stopped, 'stop');
    assert.deepEqual([second.stopped, launches.all.length], [true, 1]);
  });
});

// Runs all of tests/service on one host, with a list of the tests that the host cannot pass. A listed test must fail: one that
// passes fails the run, and so does a name that no test has.
//
// The files of tests/service know no list. They import `node:test`, which is resolved to this module for them.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { registerHooks } from 'node:module';
import * as runner from 'node:test';
import type { StartService } from '../service/service.ts';

/** A test that a host cannot pass. */
export type Exception = {
  /** In tests/service. */
  file: string;
  /** The names of its suites and its own, joined by ` > `. */
  test: string;
  /** The difference between the hosts that the README states. */
  reason: string;
};

type Registered = (...given: unknown[]) => unknown;
type ServiceTests = { tests: (start: StartService) => void };

export const { before, after, beforeEach, afterEach } = runner;

/** The listed tests that have not been registered yet, by path. */
const left = new Map<string, Exception>();
/** The names of the suites around the call. */
const path: string[] = [];

export type Part = {
  /** This part of the files, from 1. The runner runs test files in parallel, not their tests. */
  part: number;
  parts: number;
};

/** Registers every test of the folder, or of a part of its files. The folder is the list, so that no file can be forgotten. */
export async function serviceTests(
  start: StartService,
  exceptions: readonly Exception[],
  { part, parts }: Part = { part: 1, parts: 1 },
  folder = new URL('../service/', import.meta.url),
): Promise<void> {
  registerHooks({
    resolve: (specifier, context, next) => next(specifier === 'node:test' && context.parentURL?.startsWith(folder.href) === true ? import.meta.url : specifier, context),
  });
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts') && file !== 'service.ts').sort();
  const mine = files.filter((_, index) => index % parts === part - 1);
  // The first part has those of files that do not exist, too.
  const listed = exceptions.filter(({ file }) => mine.includes(file) || (part === 1 && !files.includes(file)));
  for (const exception of listed) left.set(pathOf([exception.file, exception.test]), exception);
  for (const file of mine) {
    // A file without `tests` throws here, and the run fails.
    const { tests } = (await import(new URL(file, folder).href)) as ServiceTests;
    describe(file, () => tests(start));
  }
  if (exceptions.length === 0) return;
  runner.it('each exception is a test of the suite, listed once', () => {
    for (const { file, test, reason } of listed) console.log(`expected to fail: ${file}: ${test} (${reason})`);
    assert.deepEqual([...left.values()], []);
    assert.equal(new Set(listed.map(({ file, test }) => pathOf([file, test]))).size, listed.length);
  });
}

export function describe(name: string, ...given: unknown[]): unknown {
  const inside = (register: Registered) => () => {
    path.push(name);
    try {
      // A suite that registers its tests later would lose its name.
      assert.equal(register(), undefined, `the suite ${name} is synchronous`);
    } finally {
      path.pop();
    }
  };
  const wrapped = given.map((each) => (typeof each === 'function' ? inside(each as Registered) : each));
  return (runner.describe as Registered)(name, ...wrapped);
}

export function it(name: string, ...given: unknown[]): unknown {
  const listed = left.get(pathOf([...path, name]));
  if (listed === undefined) return (runner.it as Registered)(name, ...given);
  left.delete(pathOf([...path, name]));
  const options = given.find((each) => typeof each === 'object');
  return (runner.it as Registered)(`${name} (excepted: ${listed.reason})`, { ...options, expectFailure: true }, given.find((each) => typeof each === 'function'));
}

const pathOf = (names: string[]) => names.join(' > ');

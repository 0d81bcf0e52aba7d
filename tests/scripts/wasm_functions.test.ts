// Functions of the module without a use have no code.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import binaryen from 'binaryen';
import { emptyFunctions } from '../../scripts/wasm_functions.ts';

const source = `(module
  (import "./own.js" "number" (func $imported (result i32)))
  (memory (export "memory") 1)
  (func $kept (export "kept") (result i32) (i32.add (call $imported) (i32.const 1)))
  (func $unused (export "unused") (param i32) (result i32) (local i32) (i32.const 7))
  (func $silent (export "silent") (param i32) (local i64) (i32.store (i32.const 0) (local.get 0))))`;

const emptied = { unused: 'trap', silent: 'nothing' } as const;
const bodyOf = (name: string) => (emptied as Partial<Record<string, 'trap' | 'nothing'>>)[name];

function parsed(hasNames: boolean): Uint8Array {
  binaryen.setDebugInfo(hasNames);
  return binaryen.parseText(source).emitBinary();
}

it('a function without a use traps, one without an effect returns, the others are kept', () => {
  const module = new WebAssembly.Module(Uint8Array.from(emptyFunctions(parsed(true), bodyOf)));
  const instance = new WebAssembly.Instance(module, { './own.js': { number: () => 41 } });
  const { kept, unused, silent, memory } = instance.exports as unknown as Record<'kept' | 'unused' | 'silent', (value?: number) => number> & { memory: WebAssembly.Memory };
  assert.equal(kept(), 42);
  assert.throws(() => unused(1), WebAssembly.RuntimeError);
  silent(5);
  assert.equal(new Uint32Array(memory.buffer)[0], 0);
});

it('a module without names of functions is refused', () => {
  assert.throws(() => emptyFunctions(parsed(false), bodyOf), /no names/);
});

// The imports of the module have short names, in both of its files.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import binaryen from 'binaryen';
import { shortenImports } from '../../scripts/wasm_imports.ts';

const LONG = `__wbg_${'long'.repeat(40)}_0123456789abcdef`;

const source = `(module
  (import "./glue.js" "${LONG}" (func $first (param i32) (result i32)))
  (import "./glue.js" "__wbindgen_object_0000000000000001" (func $second (result i32)))
  (import "./own.js" "timer" (func $timer (result i32)))
  (memory (export "memory") 1)
  (func (export "sum") (result i32)
    (i32.add (call $first (i32.const 1)) (i32.add (call $second) (call $timer)))))`;

it('generated names are short, in the module as in its JavaScript', () => {
  const script = `{${LONG}: (n) => n + 1, __wbindgen_object_0000000000000001: () => 20, __wbindgen_malloc: 0}; const timer = 1;`;
  const { wasm, script: shortened } = shortenImports(binaryen.parseText(source).emitBinary(), script);
  assert.equal(shortened, '{$0: (n) => n + 1, $1: () => 20, __wbindgen_malloc: 0}; const timer = 1;');
  const module = new WebAssembly.Module(Uint8Array.from(wasm));
  assert.deepEqual(WebAssembly.Module.imports(module).map(({ module: from, name }) => [from, name]), [
    ['./glue.js', '$0'],
    ['./glue.js', '$1'],
    ['./own.js', 'timer'],
  ]);
  const instance = new WebAssembly.Instance(module, { './glue.js': { $0: (n: number) => n + 1, $1: () => 20 }, './own.js': { timer: () => 300 } });
  assert.equal((instance.exports['sum'] as () => number)(), 322);
});

it('an import that is no function is refused', () => {
  const other = '(module (import "./glue.js" "__wbg_memory_0123456789abcdef" (memory 1)))';
  assert.throws(() => shortenImports(binaryen.parseText(other).emitBinary(), ''), /is no function/);
});

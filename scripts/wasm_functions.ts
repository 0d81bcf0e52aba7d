/** Empties functions of a Wasm module by their names, where the linker keeps code that does nothing here. */
import { Reader, leb128, withSections } from './wasm_imports.ts';

const CUSTOM_SECTION = 0;
const IMPORT_SECTION = 2;
const CODE_SECTION = 10;
const FUNCTION_NAMES = 1;

/** The bodies of emptied functions, after the count of their local variables: none. */
const bodies = {
  /** Of one that nothing calls. */
  trap: Uint8Array.of(0, 0x00, 0x0b),
  /** Of one whose call has no effect, and no result. */
  nothing: Uint8Array.of(0, 0x0b),
};

/** Empties the functions for whose names `body` returns one; fails when the module has no function of any name. */
export function emptyFunctions(wasm: Uint8Array, body: (name: string) => keyof typeof bodies | undefined): Uint8Array {
  const names = functionNames(wasm);
  if (names.size === 0) throw new Error('the module has no names of functions');
  const imports = importCount(wasm);
  return withSections(wasm, (id, reader) => {
    if (id !== CODE_SECTION) return undefined;
    const count = reader.number();
    const parts = [leb128(count)];
    for (let n = 0; n < count; n += 1) {
      const length = reader.number();
      const emptied = body(names.get(imports + n) ?? '');
      const code = emptied ? bodies[emptied] : wasm.subarray(reader.at, reader.at + length);
      parts.push(leb128(code.length), code);
      reader.at += length;
    }
    return Buffer.concat(parts);
  });
}

/** The names of functions by their numbers, from the section `name` (WebAssembly Core Specification, appendix 7.4). */
function functionNames(wasm: Uint8Array): Map<number, string> {
  const names = new Map<number, string>();
  withSections(wasm, (id, reader, end) => {
    if (id !== CUSTOM_SECTION || reader.text() !== 'name') return undefined;
    while (reader.at < end) {
      const kind = reader.number();
      const length = reader.number();
      if (kind === FUNCTION_NAMES) readNames(reader, names);
      else reader.at += length;
    }
    return undefined;
  });
  return names;
}

function readNames(reader: Reader, names: Map<number, string>): void {
  const count = reader.number();
  for (let n = 0; n < count; n += 1) names.set(reader.number(), reader.text());
}

/** The module imports nothing but functions (`shortenImports`), which have the first numbers. */
function importCount(wasm: Uint8Array): number {
  let count = 0;
  withSections(wasm, (id, reader) => {
    if (id === IMPORT_SECTION) count = reader.number();
    return undefined;
  });
  return count;
}

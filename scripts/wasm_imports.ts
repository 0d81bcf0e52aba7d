/**
 * Short names for the functions that the module imports from wasm-bindgen's JavaScript. Each has a hash in its name, in both files,
 * which no compression shortens: 5 KB gzipped.
 */
const IMPORT_SECTION = 2;
const FUNCTION = 0;

/** Renames the generated imports of a Wasm module, and the same names in its JavaScript. */
export function shortenImports(wasm: Uint8Array, script: string): { wasm: Uint8Array; script: string } {
  const imports = WebAssembly.Module.imports(new WebAssembly.Module(Uint8Array.from(wasm)));
  const generated = imports.map(({ name }) => name).filter((name) => /^__wb(g|indgen)_/.test(name));
  const names = new Map(generated.map((name, number) => [name, `$${number.toString(36)}`]));
  return {
    wasm: withImports(wasm, (name) => names.get(name) ?? name),
    script: script.replaceAll(/\b__wb(?:g|indgen)_\w+/g, (name) => names.get(name) ?? name),
  };
}

/** Rewrites the section of imports (WebAssembly Core Specification, section 5.5.5). */
const withImports = (wasm: Uint8Array, renamed: (name: string) => string) =>
  withSections(wasm, (id, reader) => (id === IMPORT_SECTION ? importSection(reader, renamed) : undefined));

/** Replaces sections of a module: those for which `replaced` returns the bytes of another. */
export function withSections(wasm: Uint8Array, replaced: (id: number, reader: Reader, end: number) => Uint8Array | undefined): Uint8Array {
  const header = 8;
  const parts = [wasm.subarray(0, header)];
  const reader = new Reader(wasm, header);
  while (reader.at < wasm.length) {
    const start = reader.at;
    const id = reader.number();
    const end = reader.number() + reader.at;
    const section = replaced(id, reader, end);
    if (section === undefined) parts.push(wasm.subarray(start, end));
    else parts.push(Uint8Array.of(id), leb128(section.length), section);
    reader.at = end;
  }
  return Buffer.concat(parts);
}

function importSection(reader: Reader, renamed: (name: string) => string): Uint8Array {
  const count = reader.number();
  const parts = [leb128(count)];
  for (let n = 0; n < count; n += 1) {
    const [module, name, kind, type] = [reader.text(), renamed(reader.text()), reader.number(), reader.number()];
    if (kind !== FUNCTION) throw new Error(`the import ${name} is no function`);
    parts.push(text(module), text(name), leb128(kind), leb128(type));
  }
  return Buffer.concat(parts);
}

/** Reads the values of a module's binary format. */
export class Reader {
  readonly bytes: Uint8Array;
  at: number;

  constructor(bytes: Uint8Array, at: number) {
    this.bytes = bytes;
    this.at = at;
  }

  /** An unsigned number in LEB128. */
  number(): number {
    let [value, shift] = [0, 0];
    for (;;) {
      const byte = this.bytes[this.at] ?? 0;
      this.at += 1;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
      shift += 7;
    }
  }

  text(): string {
    const length = this.number();
    this.at += length;
    return Buffer.from(this.bytes.subarray(this.at - length, this.at)).toString();
  }
}

const text = (value: string) => Buffer.concat([leb128(Buffer.byteLength(value)), Buffer.from(value)]);

/** An unsigned number in LEB128. */
export function leb128(value: number): Uint8Array {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 0x80) return Uint8Array.from([...bytes, rest]);
    bytes.push((rest & 0x7f) | 0x80);
  }
}

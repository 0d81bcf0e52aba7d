// The compiled module. A static file: Deno's import of a `.wasm` makes an instance, of which a trap would leave no second one.
export default await WebAssembly.compile(await Deno.readFile(new URL('./ai_sessions_bg.wasm', import.meta.url)));

/**
 * One isolate of an Edge Function, in a process of Deno: any free port, and the part of Supabase's runtime that a function uses.
 * The first line of the output has the port, and the time in which the function was imported.
 */
globalThis.EdgeRuntime = { waitUntil: (work) => void work.catch(() => {}) };

const serve = Deno.serve;
let start_ms;

Deno.serve = (handle) => {
  const import_ms = performance.now() - start_ms;
  return serve({ hostname: '127.0.0.1', port: 0, onListen: ({ port }) => console.log(JSON.stringify({ port, import_ms })) }, handle);
};

start_ms = performance.now();
await import(Deno.args[0]);

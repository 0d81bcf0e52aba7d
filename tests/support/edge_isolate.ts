// Runs on Deno, inside each isolate of the stand-in for Supabase's edge runtime, before the function: defines the global that
// only that runtime has, and connects the isolate to the stand-in. Orders arrive as lines on stdin, reports are marked lines on
// stdout.

import type { IsolateOrder, IsolateReport } from './edge_runtime.ts';

type Handler = (request: Request) => Response | Promise<Response>;
declare const Deno: {
  args: string[];
  env: { delete(name: string): void };
  exit(code: number): never;
  serve: unknown;
  version: { deno: string };
  stdin: { readable: ReadableStream<Uint8Array<ArrayBuffer>> };
};

const [entry = '', mark = '', ...hidden] = Deno.args;
const report = (message: IsolateReport) => console.log(mark + JSON.stringify(message));

// What Deno itself needs is no variable of the platform.
for (const name of hidden) Deno.env.delete(name);

let pending = 0;
const changed = (by: number) => {
  pending += by;
  report({ pending_work: pending });
};
Object.assign(globalThis, {
  EdgeRuntime: {
    waitUntil(work: Promise<unknown>) {
      changed(1);
      const end = () => changed(-1);
      Promise.resolve(work).then(end, end);
    },
  },
});

const serve = Deno.serve as (options: object, handler: Handler) => object;
const serveHere = (handler: Handler) => serve({ hostname: '127.0.0.1', port: 0, onListen: ({ port }: { port: number }) => report({ port, deno_version: Deno.version.deno }) }, handler);
// The platform ignores the options of the call.
Deno.serve = (...given: unknown[]) => serveHere(given.find((each) => typeof each === 'function') as Handler);

void execute();
const { default: exported } = (await import(entry)) as { default?: { fetch?: Handler } };
if (typeof exported?.fetch === 'function') serveHere((request) => exported.fetch?.(request) as Response);

/** Executes the orders; the end of stdin is the end of the stand-in. */
async function execute(): Promise<never> {
  let rest = '';
  for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const order = JSON.parse(line) as IsolateOrder;
      dispatchEvent(new CustomEvent('beforeunload', { detail: { reason: order.beforeunload } }));
      report({ unloading: true });
    }
  }
  return Deno.exit(1);
}

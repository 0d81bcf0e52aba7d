// The entry of the Supabase Edge Function. The service is the WebAssembly module `ai_sessions_bg.wasm`; this file connects it to
// Deno. `npm run build` makes all other files of this folder.

import { handle_request, release_leases } from './ai_sessions.js';

/** Keeps the isolate until the work is done. Only Supabase's runtime has it. */
declare const EdgeRuntime: { waitUntil(work: Promise<unknown>): void } | undefined;

const waitUntil = (work: Promise<unknown>): void => {
  if (typeof EdgeRuntime !== 'undefined') EdgeRuntime.waitUntil(work);
};

/** The static assets, by the last segment of the URL's path. */
const ASSETS = {
  async fetch(url: string): Promise<Response> {
    const name = new URL(url).pathname.split('/').at(-1) ?? '';
    if (!['docs.html', 'openapi.json'].includes(name)) return new Response(null, { status: 404 });
    return new Response(await Deno.readFile(new URL(`./${name}`, import.meta.url)));
  },
};

const environment = { ...Deno.env.toObject(), ASSETS };

// Without these, one error that nothing catches would end the isolate and all of its requests.
for (const type of ['error', 'unhandledrejection']) addEventListener(type, (event) => event.preventDefault());
addEventListener('beforeunload', () => waitUntil(release_leases()));

Deno.serve((request: Request) => handle_request(request, environment, waitUntil));

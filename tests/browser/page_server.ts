// Serves the example page's static files on an origin of their own, for the services of one test.

import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';
import { exampleFiles, type PageServices, placeholders } from '../../scripts/example_page.ts';
import { type LoopbackServer, startLoopbackServer } from '../support/loopback_server.ts';

const types: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

export type PageServer = LoopbackServer & {
  /** Call before the first page is opened. */
  serve(services: PageServices): void;
};

export async function startPageServer(): Promise<PageServer> {
  let services: PageServices | undefined;
  const server = await startLoopbackServer(async (request, response) => {
    const path = normalize(new URL(request.url ?? '/', 'http://page').pathname);
    const file = path === '/' ? '/index.html' : path;
    const bytes = await readFile(join(exampleFiles, file)).catch(() => undefined);
    if (bytes === undefined) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { 'content-type': types[extname(file)] ?? 'application/octet-stream', 'cache-control': 'no-store' });
    response.end(file === '/index.html' && services !== undefined ? withServices(bytes.toString(), services) : bytes);
  });
  return Object.assign(server, { serve: (theirs: PageServices) => void (services = theirs) });
}

/** The build of the page, configured for these services. */
function withServices(html: string, services: PageServices): string {
  return (Object.keys(placeholders) as (keyof PageServices)[]).reduce((text, name) => text.replaceAll(placeholders[name], services[name]), html);
}

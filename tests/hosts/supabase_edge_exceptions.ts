// The tests of tests/service that the service cannot pass on Supabase Edge.

import type { Exception } from './listed_exceptions.ts';

const documents = 'GET of text/html becomes text/plain without a custom domain';

export const exceptions: Exception[] = [
  { file: 'openapi.ts', test: 'GET /docs > the page may load and run nothing', reason: documents },
  { file: 'openapi.ts', test: 'GET /docs > the type of a problem is a link to /docs', reason: documents },
  { file: 'openapi.ts', test: 'a misconfigured service > /docs is available with a bad configuration', reason: documents },
  { file: 'openapi.ts', test: 'every parameter can be sent as its example > docs accepts the examples of all parameters', reason: documents },
];

// The tests of tests/service that the service cannot pass on Supabase Edge.

import type { Exception } from './listed_exceptions.ts';

const documents = 'GET of text/html becomes text/plain without a custom domain';

const store = 'the database is the store of the user state: it refuses a deleted account before a model call';
const outage = 'paid answers are kept while the database is down: only the output that was stored before';

export const exceptions: Exception[] = [
  { file: 'database_fault_table.ts', test: 'an outage of the whole database > an outage during the model call delays the candidates', reason: outage },
  { file: 'database_outages.ts', test: 'a database outage before the session is opened > a database that refuses every connection costs no generation', reason: outage },
  { file: 'deleted_account.ts', test: 'with a model that is slower than the database > a deleted account is rejected after one model call', reason: store },
  { file: 'deleted_account.ts', test: 'with a model that is faster than the database > a deleted account is rejected after one model call', reason: store },
  { file: 'deleted_account.ts', test: 'a deleted account is rejected after a restart too', reason: store },
  { file: 'deleted_account.ts', test: 'a deleted account does not affect another user', reason: store },
  { file: 'openapi.ts', test: 'GET /docs > the page may load and run nothing', reason: documents },
  { file: 'openapi.ts', test: 'GET /docs > the type of a problem is a link to /docs', reason: documents },
  { file: 'openapi.ts', test: 'a misconfigured service > /docs is available with a bad configuration', reason: documents },
  { file: 'openapi.ts', test: 'every parameter can be sent as its example > docs accepts the examples of all parameters', reason: documents },
];

// Runs some files of tests/service on the newest Deno: a forward check for the day on which Supabase's edge runtime takes a newer
// engine. They have no exception on Supabase Edge.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { StartService } from '../service/service.ts';
import { tests as requestBody } from '../service/request_body.ts';
import { tests as streams } from '../service/streams.ts';
import { releases } from '../support/deno_program.ts';
import { startInIsolates } from './supabase_edge.ts';

const start: StartService = (variables) => startInIsolates({ deno: 'newest' }, variables);

describe('the newest Deno', () => {
  it('an isolate runs on the newest Deno', async () => {
    const service = await startInIsolates({ deno: 'newest' });
    const version = service.runtime.isolates[0]?.deno_version ?? '';
    await service.close();
    // Not older: it can be the machine's own.
    assert.ok(version.localeCompare(releases.newest.version, 'en', { numeric: true }) >= 0, version);
  });

  describe('request_body.ts', () => requestBody(start));
  describe('streams.ts', () => streams(start));
});

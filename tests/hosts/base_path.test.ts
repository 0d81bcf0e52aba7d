// Runs the tests of all URLs that the service writes with the service under a base path: `PUBLIC_URL` is that of a proxy,
// which leaves the base path in the path of each request.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type NetworkProxy, startNetworkProxy } from '../browser/network_proxy.ts';
import * as createSession from '../service/create_session.ts';
import * as disconnect from '../service/disconnect.ts';
import * as httpConventions from '../service/http_conventions.ts';
import * as listSessions from '../service/list_sessions.ts';
import * as modelRequests from '../service/model_requests.ts';
import * as openapi from '../service/openapi.ts';
import * as problemTable from '../service/problem_table.ts';
import * as respondAsync from '../service/respond_async.ts';
import { sendRequest, type Service, started, type StartService, type Variables } from '../service/service.ts';
import * as sessionEvents from '../service/session_events.ts';
import * as streams from '../service/streams.ts';
import type { World } from '../support/world.ts';
import { startOnWorkerd } from './workerd.ts';

const BASE_PATH = '/functions/v1/flashcards';

const files = { createSession, disconnect, httpConventions, listSessions, modelRequests, openapi, problemTable, respondAsync, sessionEvents, streams };

const startUnderBasePath: StartService = async (variables) => {
  let direct: Service | undefined;
  const proxy: NetworkProxy = await startNetworkProxy(() => direct?.url ?? '');
  const url = proxy.url + BASE_PATH;
  direct = await startOnWorkerd((world) => ({ ...variablesFor(world, variables), PUBLIC_URL: url }));
  const { world, logs, restart, close } = direct;
  return {
    url,
    world,
    logs,
    restart,
    async close() {
      await close();
      await proxy.close();
    },
  };
};

const variablesFor = (world: World, variables: Variables = {}) => (typeof variables === 'function' ? variables(world) : variables);

for (const [name, { tests }] of Object.entries(files)) describe(name, () => tests(startUnderBasePath));

describe('a gateway that removes the base path', () => {
  const service = started(startOnWorkerd, { PUBLIC_URL: `https://cards.example${BASE_PATH}/` });

  it('a path without the base path is served, with the public URL in it', async () => {
    const document = await sendRequest(service(), 'GET', '/openapi.json');
    assert.equal(document.body.servers[0].url, `https://cards.example${BASE_PATH}`);
    const unknown = await sendRequest(service(), 'GET', '/nothing');
    assert.equal(unknown.body.type, `https://cards.example${BASE_PATH}/docs#not_found`);
  });
});

// Requests that are refused before Postgres runs them: by a firewall or a gateway, by PostgREST whose clock is behind or
// whose schema cache is old.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createGate } from '../support/gate.ts';
import { concernsRows, type Fault, FINISH_PATH, SESSIONS_PATH } from '../support/gateway.ts';
import { gated } from '../support/model_behaviour.ts';
import { expectStoredOnce } from '../support/stored_session.ts';
import {
  create,
  createStream,
  endedSession,
  eventually,
  expectProblem,
  read,
  remaining,
  rowsOf,
  sendRequest,
  type Service,
  type SignedIn,
  signIn,
  started,
  type StartService,
} from './service.ts';

export function tests(start: StartService): void {
  const service = started(start);
  describe('a token not yet valid', () => notYetValid(service));
  describe('a firewall', () => firewall(service));
  describe('a database that is not ready', () => notReady(service));
}

const page = (status: number, title: string): Fault => ({
  kind: 'answer',
  status,
  body: `<!DOCTYPE html><html><head><title>${title}</title></head><body></body></html>`,
  headers: { 'content-type': 'text/html' },
});
const refusal = (status: number, code: string, message: string): Fault => ({
  kind: 'answer',
  status,
  body: { code, details: null, hint: null, message },
  headers: { 'www-authenticate': `Bearer error="invalid_token", error_description="${message}"` },
});
const issuedAtFuture = refusal(401, 'PGRST303', 'JWT issued at future');

const withKey = (service: Service, user: SignedIn, key: string) => create(service, user.token, undefined, { 'idempotency-key': key });

/** Expects one stored session, after one model call. */
async function expectPaidOnce(service: Service, user: SignedIn, session: { id: string; candidates: object[] }): Promise<void> {
  await endedSession(service, user);
  expectStoredOnce(await rowsOf(service, user), session);
  assert.equal(service.world.openrouter.requests.total, 1);
}

function notYetValid(service: () => Service): void {
  for (const refusals of [1, 4]) {
    it(`a token not yet valid is sent again after ${refusals} refusals`, async () => {
      const user = await signIn(service());
      service().world.openrouter.reset();
      const set = service().world.gateway.fail(concernsRows, issuedAtFuture, refusals);
      const created = await create(service(), user.token);
      assert.equal(created.status, 201, created.text);
      assert.equal(set.hits, refusals);
      assert.equal(remaining(created)['generations'], 49);
      await expectPaidOnce(service(), user, created.body);
    });
  }

  it('a token not yet valid does not stop the model call', async () => {
    const { gateway, openrouter } = service().world;
    const user = await signIn(service());
    const gate = createGate();
    openrouter.reset();
    openrouter.next(gated(gate));
    const set = gateway.fail(SESSIONS_PATH, issuedAtFuture, 3);
    const created = create(service(), user.token);
    await eventually('the row is open', async () => (await rowsOf(service(), user)).sessions[0]);
    assert.equal(set.hits, 3);
    gate.open();
    const { status, body, text } = await created;
    assert.equal(status, 201, text);
    await expectPaidOnce(service(), user, body);
  });

  it('a token that never becomes valid is a retryable failure', async () => {
    const { gateway, openrouter } = service().world;
    const user = await signIn(service());
    const key = crypto.randomUUID();
    openrouter.reset();
    const set = gateway.fail(concernsRows, issuedAtFuture);
    const failed = await withKey(service(), user, key);
    assert.equal(expectProblem(failed, 500, 'database_error').retryable, true);
    set.clear();
    const created = await withKey(service(), user, key);
    assert.equal(created.status, 201, created.text);
    await expectPaidOnce(service(), user, created.body);
    assert.ok(set.hits < 30, `${set.hits} requests`);
  });

  it('a read with a token not yet valid is repeated, then a 500', async () => {
    const { gateway } = service().world;
    const user = await signIn(service());
    const { body } = await create(service(), user.token);
    const few = gateway.fail(SESSIONS_PATH, issuedAtFuture, 2);
    assert.equal((await read(service(), user.token, body.id)).status, 200);
    assert.equal(few.hits, 2);
    const set = gateway.fail(SESSIONS_PATH, issuedAtFuture);
    const failed = await sendRequest(service(), 'GET', '/ai-sessions', { token: user.token });
    set.clear();
    assert.equal(expectProblem(failed, 500, 'database_error').retryable, true);
  });

  it('a token rejected for another reason is not sent again', async () => {
    const { gateway, openrouter } = service().world;
    for (const message of ['JWT expired', 'JWT not in audience']) {
      const user = await signIn(service());
      const gate = createGate();
      openrouter.reset();
      openrouter.next(gated(gate));
      const set = gateway.fail(SESSIONS_PATH, refusal(401, 'PGRST303', message));
      const failed = await create(service(), user.token);
      set.clear();
      gate.open();
      expectProblem(failed, 500, 'database_error');
      assert.equal(set.hits, 1);
      assert.equal(remaining(failed)['generations'], 50);
      await openrouter.aborted(1);
    }
  });
}

function firewall(service: () => Service): void {
  const refusals: [name: string, fault: Fault][] = [
    ['a page with 403', page(403, 'Attention Required! | Cloudflare')],
    ['a line with 403', { kind: 'answer', status: 403, body: 'error code: 1020', headers: { 'content-type': 'text/plain' } }],
    ['a page with 406', page(406, 'Not Acceptable')],
    ['a page with 401', page(401, 'Unauthorized')],
  ];

  for (const [name, fault] of refusals) {
    it(`a firewall that refuses the opening by ${name} is named`, async () => {
      const { gateway, openrouter } = service().world;
      const user = await signIn(service());
      const [gate, key] = [createGate(), crypto.randomUUID()];
      openrouter.reset();
      openrouter.next(gated(gate));
      const set = gateway.fail(concernsRows, fault);
      const failed = await withKey(service(), user, key);
      const problem = expectProblem(failed, 500, 'database_error');
      assert.equal(problem.retryable, false);
      assert.match(problem.detail, /firewall/);
      assert.equal(remaining(failed)['generations'], 50, 'nothing is charged');
      await openrouter.aborted(1);
      await eventually('the log names it', () => service().logs.find((line) => line.includes('"open"') && line.includes('firewall')));
      const again = expectProblem(await withKey(service(), user, key), 500, 'database_error');
      assert.equal(again.retryable, false);

      set.clear();
      gate.open();
      await eventually('the failure is stored', async () => (await rowsOf(service(), user)).sessions.find(({ status }) => status === 'failed'), 30_000);
      const replayed = expectProblem(await withKey(service(), user, key), 500, 'database_error');
      assert.deepEqual([replayed.retryable, replayed.detail], [false, problem.detail]);
      assert.equal(openrouter.requests.total, 1);
      assert.equal((await withKey(service(), user, crypto.randomUUID())).status, 201);
    });
  }

  it('a firewall is named in a stream too', async () => {
    const { gateway, openrouter } = service().world;
    const user = await signIn(service());
    const gate = createGate();
    openrouter.reset();
    openrouter.next(gated(gate));
    const set = gateway.fail(concernsRows, page(403, 'Blocked'));
    const events = await (await createStream(service(), user.token)).whole();
    set.clear();
    gate.open();
    const { event, data } = events.at(-1) ?? {};
    assert.deepEqual([event, data.code, data.retryable], ['error', 'database_error', false]);
    assert.match(data.detail, /firewall/);
  });

  it('a firewall that refuses the completion is named, and candidates kept', async () => {
    const { gateway, openrouter } = service().world;
    const user = await signIn(service());
    const key = crypto.randomUUID();
    openrouter.reset();
    const set = gateway.fail(FINISH_PATH, page(403, 'Blocked'));
    const failed = await withKey(service(), user, key);
    const problem = expectProblem(failed, 500, 'database_error');
    assert.equal(problem.retryable, false);
    assert.match(problem.detail, /firewall.*kept/);
    assert.equal(remaining(failed)['generations'], 49);
    set.clear();
    const created = await withKey(service(), user, key);
    assert.equal(created.status, 201, created.text);
    await expectPaidOnce(service(), user, created.body);
  });

  it('a firewall that refuses a read is named', async () => {
    const user = await signIn(service());
    const { body } = await create(service(), user.token);
    const set = service().world.gateway.fail(concernsRows, page(403, 'Blocked'));
    const failed = [await read(service(), user.token, body.id), await sendRequest(service(), 'GET', '/ai-sessions', { token: user.token })];
    set.clear();
    for (const answer of failed) {
      const problem = expectProblem(answer, 500, 'database_error');
      assert.equal(problem.retryable, false);
      assert.match(problem.detail, /firewall/);
    }
  });
}

function notReady(service: () => Service): void {
  const faults: [name: string, matches: Parameters<Service['world']['gateway']['fail']>[0], fault: Fault][] = [
    ['without its function in the schema cache', FINISH_PATH, refusal(404, 'PGRST202', 'Could not find the function in the schema cache')],
    ['behind a gateway that answers 522 with a page', concernsRows, page(522, '522: Connection timed out')],
    ['behind a page with status 200', concernsRows, page(200, 'Checking your browser')],
  ];
  for (const [name, matches, fault] of faults) {
    it(`a database ${name} loses no candidates`, async () => {
      const { gateway, openrouter } = service().world;
      const user = await signIn(service());
      const key = crypto.randomUUID();
      openrouter.reset();
      const set = gateway.fail(matches, fault);
      const failed = await withKey(service(), user, key);
      assert.equal(expectProblem(failed, 500, 'database_error').retryable, true);
      set.clear();
      const created = await withKey(service(), user, key);
      assert.equal(created.status, 201, created.text);
      await expectPaidOnce(service(), user, created.body);
    });
  }

  it('a page with status 200 is no opened row and no session', async () => {
    const { gateway, openrouter } = service().world;
    const user = await signIn(service());
    const gate = createGate();
    openrouter.reset();
    openrouter.next(gated(gate));
    const set = gateway.fail(SESSIONS_PATH, page(200, 'Checking your browser'));
    const creating = create(service(), user.token);
    await openrouter.arrived(1);
    gate.open();
    const created = await creating;
    assert.equal(created.status, 201, '`finish_ai_session` opens the row itself');
    await expectPaidOnce(service(), user, created.body);
    for (const path of ['/ai-sessions', `/ai-sessions/${created.body.id}`]) {
      const unread = await sendRequest(service(), 'GET', path, { token: user.token });
      assert.equal(expectProblem(unread, 500, 'database_error').retryable, true);
    }
    set.clear();
    const found = await read(service(), user.token, created.body.id);
    assert.deepEqual([found.status, found.body.candidates], [200, created.body.candidates]);
  });
}

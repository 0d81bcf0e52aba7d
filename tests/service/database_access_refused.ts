// Who refuses stands before the database, or the database refuses for now: a token that is not valid yet by its clock, a
// schema that PostgREST does not know yet, a firewall, pages in place of answers.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createGate } from '../support/gate.ts';
import { type Fault, FINISH_PATH, type GatewayRequest, SESSIONS_PATH } from '../support/gateway.ts';
import { gated } from '../support/model_behaviour.ts';
import {
  create,
  createStream,
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
  describe('a token that is not valid yet', () => notYetValid(service));
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

const ofDatabase = ({ path }: GatewayRequest) => path.startsWith('/rest/v1/');
const withKey = (service: Service, user: SignedIn, key: string) => create(service, user.token, undefined, { 'idempotency-key': key });

/** One session with the cards of that answer, one event, one model call. */
async function expectPaidAndStoredOnce(service: Service, user: SignedIn, { id, candidates }: { id: string; candidates: { id: string }[] }): Promise<void> {
  await eventually('the end is written', async () => (await rowsOf(service, user)).sessions.find(({ status }) => status !== 'generating'));
  const rows = await rowsOf(service, user);
  assert.deepEqual(rows.sessions.map(({ id, status, partial }) => [id, status, partial]), [[id, 'completed', false]]);
  assert.deepEqual(rows.candidates.map(({ id }) => id), candidates.map(({ id }) => id));
  assert.deepEqual(rows.events.map(({ type }) => type), ['ai_session.completed']);
  assert.equal(service.world.openrouter.requests.total, 1);
}

function notYetValid(service: () => Service): void {
  for (const refusals of [1, 4]) {
    it(`is sent again: ${refusals} refusals are not noticed`, async () => {
      const user = await signIn(service());
      service().world.openrouter.reset();
      const set = service().world.gateway.fail(ofDatabase, issuedAtFuture, refusals);
      const created = await create(service(), user.token);
      assert.equal(created.status, 201, created.text);
      assert.equal(set.hits, refusals);
      assert.equal(remaining(created)['generations'], 49);
      await expectPaidAndStoredOnce(service(), user, created.body);
    });
  }

  it('does not stop a model that runs', async () => {
    const { gateway, openrouter } = service().world;
    const user = await signIn(service());
    const gate = createGate();
    openrouter.reset();
    openrouter.next(gated(gate));
    const set = gateway.fail(SESSIONS_PATH, issuedAtFuture, 3);
    const created = create(service(), user.token);
    await eventually('the row is there', async () => (await rowsOf(service(), user)).sessions[0]);
    assert.equal(set.hits, 3);
    gate.open();
    const { status, body, text } = await created;
    assert.equal(status, 201, text);
    await expectPaidAndStoredOnce(service(), user, body);
  });

  it('that does not become valid costs a retryable failure, and loses nothing', async () => {
    const { gateway, openrouter } = service().world;
    const user = await signIn(service());
    const key = crypto.randomUUID();
    openrouter.reset();
    const set = gateway.fail(ofDatabase, issuedAtFuture);
    const failed = await withKey(service(), user, key);
    assert.equal(expectProblem(failed, 500, 'database_error').retryable, true);
    set.clear();
    const created = await withKey(service(), user, key);
    assert.equal(created.status, 201, created.text);
    await expectPaidAndStoredOnce(service(), user, created.body);
    assert.ok(set.hits < 30, `${set.hits} requests`);
  });

  it('reads a session, or is a failure of the service', async () => {
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

  it('is not one that the database refuses for another reason', async () => {
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
    it(`that refuses the opening by ${name} is named, and no retry is offered`, async () => {
      const { gateway, openrouter } = service().world;
      const user = await signIn(service());
      const [gate, key] = [createGate(), crypto.randomUUID()];
      openrouter.reset();
      openrouter.next(gated(gate));
      const set = gateway.fail(ofDatabase, fault);
      const failed = await withKey(service(), user, key);
      const problem = expectProblem(failed, 500, 'database_error');
      assert.equal(problem.retryable, false);
      assert.match(problem.detail, /firewall/);
      assert.equal(remaining(failed)['generations'], 50, 'nothing is counted');
      await openrouter.aborted(1);
      await eventually('the log names it', () => service().logs.find((line) => line.includes('"open"') && line.includes('firewall')));
      const again = expectProblem(await withKey(service(), user, key), 500, 'database_error');
      assert.equal(again.retryable, false);

      set.clear();
      gate.open();
      await eventually('the failure is written', async () => (await rowsOf(service(), user)).sessions.find(({ status }) => status === 'failed'), 30_000);
      const replayed = expectProblem(await withKey(service(), user, key), 500, 'database_error');
      assert.deepEqual([replayed.retryable, replayed.detail], [false, problem.detail]);
      assert.equal(openrouter.requests.total, 1);
      assert.equal((await withKey(service(), user, crypto.randomUUID())).status, 201);
    });
  }

  it('is named in a stream too', async () => {
    const { gateway, openrouter } = service().world;
    const user = await signIn(service());
    const gate = createGate();
    openrouter.reset();
    openrouter.next(gated(gate));
    const set = gateway.fail(ofDatabase, page(403, 'Blocked'));
    const events = await (await createStream(service(), user.token)).whole();
    set.clear();
    gate.open();
    const { event, data } = events.at(-1) ?? {};
    assert.deepEqual([event, data.code, data.retryable], ['error', 'database_error', false]);
    assert.match(data.detail, /firewall/);
  });

  it('that refuses the completing is named, and what was paid for is kept', async () => {
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
    await expectPaidAndStoredOnce(service(), user, created.body);
  });

  it('that refuses a read is named', async () => {
    const user = await signIn(service());
    const { body } = await create(service(), user.token);
    const set = service().world.gateway.fail(ofDatabase, page(403, 'Blocked'));
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
    ['that does not know its function yet', FINISH_PATH, refusal(404, 'PGRST202', 'Could not find the function in the schema cache')],
    ['behind a gateway that answers 522 with a page', ofDatabase, page(522, '522: Connection timed out')],
    ['behind a page with status 200', ofDatabase, page(200, 'Checking your browser')],
  ];
  for (const [name, matches, fault] of faults) {
    it(`${name} costs nothing that was paid for`, async () => {
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
      await expectPaidAndStoredOnce(service(), user, created.body);
    });
  }

  it('behind a page with status 200 opens no row and reads no session', async () => {
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
    assert.equal(created.status, 201, 'the completing function opens the row itself');
    await expectPaidAndStoredOnce(service(), user, created.body);
    for (const path of ['/ai-sessions', `/ai-sessions/${created.body.id}`]) {
      const unread = await sendRequest(service(), 'GET', path, { token: user.token });
      assert.equal(expectProblem(unread, 500, 'database_error').retryable, true);
    }
    set.clear();
    const found = await read(service(), user.token, created.body.id);
    assert.deepEqual([found.status, found.body.candidates], [200, created.body.candidates]);
  });
}

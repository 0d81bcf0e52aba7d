// `kill -9` of a host's process while streams are open, and a start on the same storage. A subscriber that reconnects with its last
// event id receives the rest of the same list; candidates sent before the crash are in it and are not billed twice.
// (The sessions themselves: generation_crashes.ts. At random moments: random_crashes.ts.)

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { createStream, expectList, ofTheList, read, type Service, type SignedIn, signIn, subscribe } from '../service/service.ts';
import type { StreamEvent } from '../support/event_stream.ts';
import { createGate } from '../support/gate.ts';
import type { EventSubscriber } from '../support/event_subscriber.ts';
import { FINISH_PATH } from '../support/gateway.ts';
import { answer, candidateByCandidate, gated, httpError, type ModelBehaviour } from '../support/model_behaviour.ts';
import type { CrashHost } from './crash_host.ts';

type Case = {
  when: string;
  /** The behaviour of the model at the first call; a second one has a good answer. */
  model?: ModelBehaviour;
  /** The database rejects the completion, until the crash. */
  isNotPersisted?: true;
  /** The number of events received before the crash. */
  eventsReceived: number;
  /** How the subscriber reconnects. */
  back: 'at its events' | 'by its key';
  fate: { candidates: number; end: 'done' | 'error'; partial?: boolean; code?: string; modelCalls: number };
};

type Victim = { user: SignedIn; stream: EventSubscriber; received: StreamEvent[] };

/** A gate that stays closed until the crash. */
const shut = () => createGate();

const cases: Case[] = [
  { when: 'before the first candidate', model: gated(shut()), eventsReceived: 1, back: 'at its events', fate: { candidates: 20, end: 'done', partial: false, modelCalls: 2 } },
  { when: 'before the first candidate', model: gated(shut()), eventsReceived: 1, back: 'by its key', fate: { candidates: 20, end: 'done', partial: false, modelCalls: 2 } },
  ...[1, 5].flatMap((candidates): Case[] =>
    (['at its events', 'by its key'] as const).map((back) => ({
      when: `right after candidate ${candidates}`,
      model: candidateByCandidate(gates(candidates)),
      eventsReceived: 1 + candidates,
      back,
      fate: { candidates, end: 'done', partial: true, modelCalls: 1 },
    })),
  ),
  { when: 'after all candidates, before the completion is stored', isNotPersisted: true, eventsReceived: 21, back: 'at its events', fate: { candidates: 20, end: 'done', partial: false, modelCalls: 1 } },
  { when: 'before a failure is stored', model: httpError(402), isNotPersisted: true, eventsReceived: 1, back: 'at its events', fate: { candidates: 0, end: 'error', code: 'ai_misconfigured', modelCalls: 1 } },
  { when: 'after the last event', model: answer({ candidates: 4 }), eventsReceived: 6, back: 'at its events', fate: { candidates: 4, end: 'done', partial: false, modelCalls: 1 } },
];

/** Gates that are open except the last one, after which nothing is sent. */
function gates(candidates: number) {
  const gates = Array.from({ length: candidates }, createGate);
  for (const gate of gates.slice(0, -1)) gate.open();
  return gates;
}

const KEY = { 'idempotency-key': '"the-one"' };

/** The tests, on any host. */
export function crashedStreams<S extends Service>(host: CrashHost<S>): void {
  describe('a stream in a crash', () => {
    let service: S;
    const victims = new Map<Case, Victim>();
    before(async () => {
      service = await host.start({ AI_IDLE_TIMEOUT_MS: '60000' });
      for (const each of cases) victims.set(each, await reachStage(each));
      // Immediately: the events sent just before must be stored.
      await host.kill(service);
      service.world.gateway.clearFaults();
    });
    after(() => service.close());

    async function reachStage({ model, isNotPersisted, eventsReceived }: Case): Promise<Victim> {
      const { gateway, openrouter } = service.world;
      const user = await signIn(service);
      const isTheirs = ({ path, headers }: { path: string; headers: Record<string, unknown> }) =>
        path === FINISH_PATH && headers['authorization'] === `Bearer ${user.token}`;
      if (isNotPersisted) gateway.fail(isTheirs, { kind: 'gate', gate: shut() });
      if (model !== undefined) openrouter.next(model);
      const called = openrouter.arrived(openrouter.requests.total + 1);
      const stream = await createStream(service, user.token, undefined, KEY);
      const received = await stream.some(eventsReceived);
      await called;
      if (isNotPersisted) await gateway.requests.nthWhere(1, isTheirs);
      return { user, stream, received };
    }

    for (const each of cases) {
      const { when, back, fate } = each;
      it(`a stream cut ${when} is resumed ${back}`, async () => {
        const victim = victims.get(each);
        assert.ok(victim, 'it has reached its stage');
        const { user, stream, received } = victim;
        const id = received[0]?.data.id;
        if (received.at(-1)?.event !== 'done') assert.equal(await stream.end, 'broken', 'a cut stream does not end like a whole one');
        assert.deepEqual(stream.events, received);
        const rest =
          back === 'at its events'
            ? await subscribe(service, user.token, id, stream.lastEventId)
            : await createStream(service, user.token, undefined, { ...KEY, 'last-event-id': stream.lastEventId });
        const joined = [...received, ...(await rest.whole())];
        const end = expectList(joined, fate.candidates, fate.end);
        assert.deepEqual([end.partial, end.code], [fate.partial, fate.code]);

        const again = await (await subscribe(service, user.token, id)).whole();
        assert.deepEqual(again.map(ofTheList), joined.map(ofTheList));
        const candidates = joined.filter(({ event }) => event === 'candidate').map(({ data: { index, ...candidate } }) => candidate);
        const found = await read(service, user.token, id);
        assert.deepEqual(found.body.candidates, candidates);
        const calls = service.world.openrouter.requests.where(({ headers }) => headers['x-session-id'] === id);
        assert.equal(calls.length, fate.modelCalls);
      });
    }
  });
}

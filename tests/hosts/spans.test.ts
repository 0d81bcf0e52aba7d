// The spans of a traced generation in workerd: a streaming tail worker receives them, as the platform's exporters do.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { create, eventually, lesson, signIn } from '../service/service.ts';
import { startAfter, type WorkerdService } from './workerd.ts';

const TRACEPARENT = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';

/** Logs each span with its trace, and its end. */
const tail = `
const log = (kind, { event, spanContext }) =>
  console.log('SPAN ' + JSON.stringify({ kind, trace: spanContext.traceId, parent: spanContext.spanId, id: event.spanId, name: event.name, model: event.executionModel }));
export default {
  tailStream(onset) {
    log('root', onset);
    return { spanOpen: (event) => log('begin', event), spanClose: (event) => log('end', event) };
  },
};`;

type Logged = { kind: 'root' | 'begin' | 'end'; trace: string; parent: string; id?: string; name?: string; model?: string };

const STAGES = ['open_row', 'call_model', 'read_answer', 'persist'];

describe('a traced deployment', () => {
  let service: WorkerdService;
  before(async () => {
    service = await startAfter('', {}, {}, tail);
  });
  after(() => service.close());

  const logged = () => service.logs.filter((line) => line.startsWith('SPAN ')).map((line) => JSON.parse(line.slice('SPAN '.length)) as Logged);
  const stages = () => logged().filter(({ kind, name }) => kind === 'begin' && STAGES.includes(name ?? ''));
  const ended = (stage: Logged) => logged().some(({ kind, trace, parent }) => kind === 'end' && trace === stage.trace && parent === stage.id);

  for (const [mode, headers] of [['sync', {}], ['async', { prefer: 'respond-async' }]] as [string, Record<string, string>][]) {
    it(`the four stages of a generation are spans (${mode})`, async () => {
      const earlier = stages().length;
      const { token } = await signIn(service);
      const created = await create(service, token, { input_text: lesson(), model: 'test/first' }, { traceparent: TRACEPARENT, ...headers });
      assert.ok(created.status < 300, created.text);
      const spans = await eventually('the spans have ended', () => {
        const found = stages().slice(earlier);
        return found.length >= STAGES.length && found.every(ended) ? found : undefined;
      });
      assert.deepEqual(spans.map(({ name }) => name), STAGES);
      const [{ trace, parent }] = spans as [Logged];
      assert.ok(spans.every((span) => span.trace === trace && span.parent === parent), 'in one invocation of the object');
      assert.equal(new Set(spans.map(({ id }) => id)).size, STAGES.length);
      const roots = logged().filter((span) => span.kind === 'root' && span.trace === trace);
      assert.deepEqual(roots.map(({ model }) => model), ['stateless', 'durableObject'], 'the request and its object are one trace');
      assert.equal(roots[1]?.id, parent);
    });
  }
});

it('a platform whose spans fail costs no generation', async () => {
  const { begin_span, end_span } = await import(new URL('../../src/cloudflare/operations.js', import.meta.url).href);
  const fail = () => {
    throw new Error('no span');
  };
  assert.equal(begin_span({ startActiveSpan: fail }, 'persist'), 0);
  assert.equal(begin_span(undefined, 'persist'), 0);
  let calls = 0;
  const span = { isTraced: true, end: () => (calls++, fail()) };
  const number = begin_span({ startActiveSpan: (_name: string, run: (span: unknown) => unknown) => run(span) }, 'persist');
  assert.notEqual(number, 0);
  end_span(number);
  end_span(number);
  assert.equal(calls, 1, 'a span ends once');
});

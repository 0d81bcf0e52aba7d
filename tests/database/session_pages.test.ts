// The list of a user's sessions as the service requests it from PostgREST: newest first, each page after the last row of the
// one before.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startWorld, type World } from '../support/world.ts';
import { type Actor, type Actors, createActors, endedSession, expectRows, expectStatus, openSession, SESSIONS } from './actors.ts';

type Row = { id: string; created_at: string };

const SELECT = 'select=id,status,created_at,flashcard_candidates(count)';

/** The first page, or the one after a row. `created_at` occurs twice, because only `lte` alone can seek an index. */
function page(limit: number, last?: Row): string {
  const query = `${SESSIONS}?${SELECT}&order=created_at.desc,id.desc&limit=${limit}`;
  if (last === undefined) return query;
  // PostgREST writes +00:00, and a plus sign in a query is a space.
  const time = encodeURIComponent(last.created_at);
  return `${query}&created_at=lte.${time}&or=(created_at.lt.${time},id.lt.${last.id})`;
}

async function pageOf(actor: Actor, limit: number, last?: Row): Promise<Row[]> {
  const answer = await actor.rest('GET', page(limit, last));
  expectStatus(answer, 200);
  return answer.body as Row[];
}

describe("the pages of a user's sessions", () => {
  let world: World;
  let actors: Actors;
  before(async () => {
    world = await startWorld({ model: false });
    actors = await createActors(world);
  });
  after(() => world.close());

  it('each session has its number of candidates, 0 for none', async () => {
    const { owner } = await createActors(world);
    const first = await endedSession(owner);
    const second = await openSession(owner);
    const rows = expectRows(await owner.rest('GET', page(20)), 2);
    assert.deepEqual(
      rows.map(({ id, status, flashcard_candidates }) => ({ id, status, flashcard_candidates })),
      [
        { id: second, status: 'generating', flashcard_candidates: [{ count: 0 }] },
        { id: first, status: 'completed', flashcard_candidates: [{ count: 2 }] },
      ],
    );
  });

  describe('put together', () => {
    // A microsecond between two sessions, and every third pair opened in the same one.
    const TIMES = Array.from({ length: 12 }, (_, i) => `2026-11-24T09:00:00.1234${50 + i - (i % 3 === 2 ? 1 : 0)}Z`);

    async function ownerOfMany(): Promise<Actor> {
      const { owner } = await createActors(world);
      for (const created_at of TIMES) await openSession(owner, { created_at });
      return owner;
    }

    for (const limit of [1, 2, 5, 11, 12, 13]) {
      it(`pages of ${limit} contain each session once and in order`, async () => {
        const owner = await ownerOfMany();
        const whole = await pageOf(owner, 100);
        assert.equal(whole.length, TIMES.length);

        const rows: Row[] = [];
        for (let last: Row | undefined; ; last = rows.at(-1)) {
          const next = await pageOf(owner, limit, last);
          rows.push(...next);
          if (next.length < limit) break;
        }
        assert.deepEqual(rows, whole);
      });
    }

    it('pages are not shifted by new sessions', async () => {
      const owner = await ownerOfMany();
      const whole = await pageOf(owner, 100);
      const first = await pageOf(owner, 5);
      await openSession(owner);
      await openSession(owner, { created_at: first[0]?.created_at });
      assert.deepEqual([...first, ...(await pageOf(owner, 100, first.at(-1)))], whole);
    });
  });

  it('pages are empty for a stranger, with the cursor of the owner too', async () => {
    const { owner } = await createActors(world);
    await openSession(owner);
    const [row] = await pageOf(owner, 1);
    assert.deepEqual(await pageOf(actors.stranger, 10, { id: 'ffffffff-ffff-ffff-ffff-ffffffffffff', created_at: row?.created_at ?? '' }), []);
  });

  it('a page is one index scan from the cursor', async () => {
    const { owner, stranger } = await createActors(world);
    await world.sql(
      `insert into public.ai_generation_sessions (id, user_id, model, input_text, created_at)
       select gen_random_uuid(), owner, 'stand-in/model', repeat('x', 1000), timestamptz '2026-01-01Z' + number * interval '1 minute'
       from unnest($1::uuid[]) as owner, generate_series(1, 1000) as number`,
      [[owner.id, stranger.id]],
    );
    await world.sql('analyze public.ai_generation_sessions');
    const last = (await pageOf(owner, 500)).at(-1);

    const answer = await owner.rest('GET', page(21, last), undefined, {
      accept: 'application/vnd.pgrst.plan+json; options=analyze',
    });
    expectStatus(answer, 200);
    const nodes = allNodes((answer.body as { Plan: PlanNode }[])[0]?.Plan);
    const scans = nodes.filter((node) => node['Relation Name'] === 'ai_generation_sessions');
    assert.equal(scans.length, 1);
    assert.equal(scans[0]?.['Index Name'], 'ai_generation_sessions_user_id_created_at_id_idx');
    assert.match(scans[0]?.['Index Cond'] ?? '', /user_id = .*created_at <= /);
    // The row of the cursor itself.
    assert.equal(scans[0]?.['Rows Removed by Filter'], 1);
    assert.deepEqual(nodes.filter((node) => node['Node Type'] === 'Sort'), []);
  });
});

/** The members of `explain (format json)` that are read here. */
type PlanNode = {
  'Node Type': string;
  'Relation Name'?: string;
  'Index Name'?: string;
  'Index Cond'?: string;
  'Rows Removed by Filter'?: number;
  Plans?: PlanNode[];
};

function allNodes(node: PlanNode | undefined): PlanNode[] {
  return node === undefined ? [] : [node, ...(node.Plans ?? []).flatMap(allNodes)];
}

// The incidents: what is broken, and the traffic meanwhile. The alerts that each must fire are in operations/README.md.

import type { Variables } from '../service/service.ts';
import { concernsRows, FINISH_PATH, SESSIONS_PATH } from '../support/gateway.ts';
import { answer, content, httpError, type ModelBehaviour, refusal } from '../support/model_behaviour.ts';
import { compose, goodAnswer, streamMessage } from '../support/model_answer.ts';
import type { Stage } from './traffic.ts';

type Play = (stage: Stage) => Promise<void>;

export type Incident = {
  /** As in the table of operations/README.md. */
  name: string;
  variables?: Variables;
  /** JavaScript that runs before the module. */
  prelude?: string;
  /** `nothing`: no request arrives. */
  play: Play | 'nothing';
};

/** Over the threshold of first-candidate-p95, and under AI_IDLE_TIMEOUT_MS. */
const SLOW_MS = 8_500;

/** A clock of the Worker that a response of the database moves on: its keys are to be older than 10 minutes. */
const MOVABLE_CLOCK = `
const [now, send] = [Date.now, fetch];
let moved_ms = 0;
Date.now = () => now() + moved_ms;
globalThis.fetch = async (...request) => {
  const response = await send(...request);
  moved_ms = Number(response.headers.get('x-clock-moved-ms') ?? moved_ms);
  return response;
};
`;

/** Key ages of 11 minutes and more: a refresh follows at most every 30 s. */
const CLOCK_MOVED_MS = [660_000, 700_000, 740_000, 780_000];

/** The dollars of one generation. */
const EXPENSIVE = 0.5;

/** So many that the machine's own slowness is no slow model. */
const AT_ONCE = 8;

async function everyLearner(stage: Stage, at_once = AT_ONCE): Promise<void> {
  const numbers = Array.from({ length: stage.learners }, (_, n) => n).values();
  const worker = async () => {
    for (const n of numbers) await stage.learn(n);
  };
  await Promise.all(Array.from({ length: Math.min(at_once, stage.learners) }, worker));
}

/** `at_once`: all, where the answers only wait. */
const withModel = (behaviour: ModelBehaviour, at_once?: number) => async (stage: Stage) => {
  stage.service.world.openrouter.always(behaviour);
  await everyLearner(stage, at_once);
};

const fewCandidates = (count: number) => Array.from({ length: count }, (_, n) => ({ front: `Question ${n + 1}?`, back: `Answer ${n + 1}.`, prompt: `Part ${n + 1}` }));
const brokenCandidates = (count: number) => Array.from({ length: count }, (_, n) => ({ front: n % 2 === 0 ? '' : 'x'.repeat(3000), back: `Answer ${n}.`, prompt: 'p' }));
const POEM = content('I am sorry, here is a poem instead.');
const FEW_VALID = answer({ candidates: [...fewCandidates(3), ...brokenCandidates(12)] });

/** Every second user gets poems, at each attempt: exactly half, since 11 of 24 failures are needed for the slow burn. */
function poemsForHalf(): ModelBehaviour {
  const users: string[] = [];
  return (turn) => {
    const user = String(turn.request.body?.['user']);
    if (!users.includes(user)) users.push(user);
    return (users.indexOf(user) % 2 === 0 ? POEM : FEW_VALID)(turn);
  };
}

/** An hour without an incident: every learner succeeds, and the failures are those that every service has. */
export const CLEAN: Incident & { play: Play } = {
  name: 'a clean hour',
  async play(stage) {
    const { openrouter } = stage.service.world;
    await everyLearner(stage);
    const user = await stage.user();
    for (const token of ['wrong', 'wrong', undefined]) await stage.request('GET', '/ai-sessions', token);
    for (let n = 0; n < 2; n += 1) await stage.request('GET', `/ai-sessions/${crypto.randomUUID()}`, user.token);
    // Invalid bodies, until the limit of a minute is reached.
    const impatient = await stage.user();
    for (let n = 0; n < 13; n += 1) await stage.request('POST', '/ai-sessions', impatient.token, { input_text: 'short' });
    openrouter.next(httpError(503));
    await stage.generate(user);
    openrouter.next(refusal());
    await stage.generate(user);
    openrouter.next(answer({ candidates: [...fewCandidates(5), { front: '', back: 'An empty front', prompt: 'p' }] }));
    await stage.generate(user);
  },
};

export const INCIDENTS: readonly Incident[] = [
  {
    name: 'the model is down',
    async play(stage) {
      stage.service.world.openrouter.down();
      await everyLearner(stage, Number.POSITIVE_INFINITY);
    },
  },
  {
    name: 'the model is slow',
    play: withModel(async (turn) => {
      await turn.pause(SLOW_MS);
      await goodAnswer(turn);
    }, Number.POSITIVE_INFINITY),
  },
  { name: 'the model API has revoked the key (401)', play: withModel(httpError(401)) },
  { name: 'the credit at the model API is gone (402)', play: withModel(httpError(402)) },
  {
    name: 'a flood by one user',
    async play(stage) {
      const user = await stage.user();
      const flood = async () => {
        for (let n = 0; n < stage.learners * 2; n += 1) await stage.generate(user);
      };
      await Promise.all([everyLearner(stage), flood()]);
    },
  },
  { name: 'a broken deployment (500)', variables: { MAX_CANDIDATES: 'many' }, play: (stage) => everyLearner(stage) },
  {
    name: 'garbage from the model',
    play: withModel(poemsForHalf()),
  },
  { name: 'no traffic', play: 'nothing' },
  {
    name: 'the signing keys cannot be refreshed',
    prelude: MOVABLE_CLOCK,
    async play(stage) {
      const { gateway } = stage.service.world;
      const { token } = await stage.user();
      await stage.request('GET', '/ai-sessions', token);
      gateway.fail('/auth/v1/', { kind: 'answer', status: 503 });
      for (const moved_ms of CLOCK_MOVED_MS) {
        gateway.fail(SESSIONS_PATH, { kind: 'answer', status: 200, body: [], headers: { 'x-clock-moved-ms': String(moved_ms) } }, 1);
        await stage.request('GET', '/ai-sessions', token);
        await stage.request('GET', '/ai-sessions', token);
      }
      await everyLearner(stage);
    },
  },
  {
    name: 'an expensive model',
    play: withModel(async (turn) => {
      turn.streamHead();
      await streamMessage(turn, compose(turn, {}), {});
      await turn.chunk({ content: '' }, 'stop');
      await turn.usageChunk({ prompt_tokens: 600, completion_tokens: 400, total_tokens: 1000, cost: EXPENSIVE });
      await turn.event('[DONE]');
      turn.end();
    }),
  },
  // Their jobs go on for a while, so they are the last.
  {
    name: 'the database is down',
    async play(stage) {
      stage.service.world.gateway.fail(concernsRows, { kind: 'cut' });
      await everyLearner(stage);
    },
  },
  {
    name: 'the database refuses the final write',
    async play(stage) {
      stage.service.world.gateway.fail(FINISH_PATH, { kind: 'answer', status: 500, body: { code: '53100', message: 'disk full' } });
      await everyLearner(stage);
    },
  },
];

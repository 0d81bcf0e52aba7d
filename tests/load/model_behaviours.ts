// The scenarios of the model server in a load run. The text itself names its scenario, so that the possible responses of
// each request are known.

import {
  answer,
  content,
  contentFilter,
  cutAfter,
  cutByLength,
  errorEvent,
  goodAnswer,
  htmlPage,
  httpError,
  inChunksOf,
  type ModelBehaviour,
  plainCompletion,
  refusal,
  silence,
} from '../support/model_behaviour.ts';
import type { ModelRequest } from '../support/model_request.ts';

export type Scenario = {
  weight: number;
  behaviour: ModelBehaviour;
  /** The behaviour at the first call of a session; the second one meets `behaviour`. */
  first?: ModelBehaviour;
  /** The outcome: candidates, all or some, or a code. */
  outcome: 'candidates' | 'partial' | 'ai_unavailable' | 'ai_timeout' | 'ai_refused' | 'ai_invalid_response';
};

export const SCENARIOS = {
  good: { weight: 50, behaviour: goodAnswer, outcome: 'candidates' },
  slow: { weight: 10, behaviour: answer({ pause_ms: 2 }), outcome: 'candidates' },
  plain: { weight: 3, behaviour: plainCompletion(), outcome: 'candidates' },
  chunked: { weight: 2, behaviour: inChunksOf(700), outcome: 'candidates' },
  busy: { weight: 5, behaviour: goodAnswer, first: httpError(503), outcome: 'candidates' },
  mute: { weight: 3, behaviour: goodAnswer, first: errorEvent(), outcome: 'candidates' },
  cut: { weight: 6, behaviour: cutAfter(3, 10), outcome: 'partial' },
  length: { weight: 5, behaviour: cutByLength(5), outcome: 'partial' },
  broken: { weight: 4, behaviour: errorEvent({ after_candidates: 2 }), outcome: 'partial' },
  filtered: { weight: 2, behaviour: contentFilter(4), outcome: 'partial' },
  down: { weight: 4, behaviour: httpError(500), outcome: 'ai_unavailable' },
  page: { weight: 2, behaviour: htmlPage(502), outcome: 'ai_unavailable' },
  hushed: { weight: 1, behaviour: answer({ whole_candidates: 2, instead_of_end: 'silence' }), outcome: 'partial' },
  silent: { weight: 1, behaviour: goodAnswer, first: silence({ headers: true }), outcome: 'candidates' },
  late: { weight: 2, behaviour: httpError(504), outcome: 'ai_timeout' },
  refused: { weight: 3, behaviour: refusal(), outcome: 'ai_refused' },
  empty: { weight: 2, behaviour: content('{"candidates":[]}'), outcome: 'ai_invalid_response' },
} satisfies Record<string, Scenario>;

export type ScenarioName = keyof typeof SCENARIOS;

/** The sentence that names the scenario. */
export const sentenceOf = (scenario: ScenarioName) => `The scenario of this text is called ${scenario}.`;

/** One call at the model server. */
export type Call = { session: string; user: string };

/** All calls at the model server, and the maximum of concurrent ones. */
export type Calls = {
  all: Call[];
  /** The maximum of concurrent sessions of one user, and the user. */
  mostAtOnce: number;
};

/** Answers each request by the scenario of its text, and records it. */
export function byText(calls: Calls): ModelBehaviour {
  const inFlight = new Map<ModelRequest, Call>();
  const callCounts = new Map<string, number>();
  return async (turn) => {
    const { request } = turn;
    const call = { session: String(request.headers['x-session-id']), user: String(request.body?.['user']) };
    calls.all.push(call);
    inFlight.set(request, call);
    void request.over.then(() => inFlight.delete(request));
    const ofUser = [...inFlight.values()].filter(({ user }) => user === call.user);
    calls.mostAtOnce = Math.max(calls.mostAtOnce, new Set(ofUser.map(({ session }) => session)).size);

    const nth = (callCounts.get(call.session) ?? 0) + 1;
    callCounts.set(call.session, nth);
    const name = request.raw.match(/The scenario of this text is called (\w+)\./)?.[1];
    if (name === undefined || !(name in SCENARIOS)) throw new Error(`the text names no scenario: ${name}`);
    const scenario: Scenario = SCENARIOS[name as ScenarioName];
    await (nth === 1 && scenario.first ? scenario.first : scenario.behaviour)(turn);
  };
}

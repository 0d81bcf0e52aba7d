// How the model server treats the texts of a load run. The text itself names the way, so that each request knows what it
// may be answered, whatever happens beside it.

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

export type Way = {
  weight: number;
  behaviour: ModelBehaviour;
  /** Fails the first call of a session with this; the second one meets `behaviour`. */
  first?: ModelBehaviour;
  /** What it comes to: cards, all of them or not, or a code. */
  comes_to: 'cards' | 'partial' | 'ai_unavailable' | 'ai_timeout' | 'ai_refused' | 'ai_invalid_response';
};

export const WAYS = {
  good: { weight: 50, behaviour: goodAnswer, comes_to: 'cards' },
  slow: { weight: 10, behaviour: answer({ pause_ms: 2 }), comes_to: 'cards' },
  plain: { weight: 3, behaviour: plainCompletion(), comes_to: 'cards' },
  chunked: { weight: 2, behaviour: inChunksOf(700), comes_to: 'cards' },
  busy: { weight: 5, behaviour: goodAnswer, first: httpError(503), comes_to: 'cards' },
  mute: { weight: 3, behaviour: goodAnswer, first: errorEvent(), comes_to: 'cards' },
  cut: { weight: 6, behaviour: cutAfter(3, 10), comes_to: 'partial' },
  length: { weight: 5, behaviour: cutByLength(5), comes_to: 'partial' },
  broken: { weight: 4, behaviour: errorEvent({ after_candidates: 2 }), comes_to: 'partial' },
  filtered: { weight: 2, behaviour: contentFilter(4), comes_to: 'partial' },
  down: { weight: 4, behaviour: httpError(500), comes_to: 'ai_unavailable' },
  page: { weight: 2, behaviour: htmlPage(502), comes_to: 'ai_unavailable' },
  hushed: { weight: 1, behaviour: answer({ whole_candidates: 2, instead_of_end: 'silence' }), comes_to: 'partial' },
  silent: { weight: 1, behaviour: goodAnswer, first: silence({ headers: true }), comes_to: 'cards' },
  late: { weight: 2, behaviour: httpError(504), comes_to: 'ai_timeout' },
  refused: { weight: 3, behaviour: refusal(), comes_to: 'ai_refused' },
  empty: { weight: 2, behaviour: content('{"candidates":[]}'), comes_to: 'ai_invalid_response' },
} satisfies Record<string, Way>;

export type WayName = keyof typeof WAYS;

/** The sentence that names the way. */
export const sentenceOf = (way: WayName) => `The way of this text is called ${way}.`;

/** One call that the model server got. */
export type Call = { session: string; user: string };

/** What the model server was asked, and how much of it at once. */
export type Calls = {
  all: Call[];
  /** The most sessions of one user that were in flight at the same time, and whose. */
  mostAtOnce: number;
};

/** Treats each request as its text says, and writes down all of them. */
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
    const name = request.raw.match(/The way of this text is called (\w+)\./)?.[1];
    if (name === undefined || !(name in WAYS)) throw new Error(`the text names no way: ${name}`);
    const way: Way = WAYS[name as WayName];
    await (nth === 1 && way.first ? way.first : way.behaviour)(turn);
  };
}

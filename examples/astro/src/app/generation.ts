/**
 * The state of the page's right half: one session at a time, new, resumed after a reload, or opened from the past. Independent
 * of the page's elements.
 */
import { type Attempt, attemptFor } from '../ai-sessions/attempts.ts';
import type { AiSessions, LineEvent, SessionEvent, StreamPlace } from '../ai-sessions/client.ts';
import type { Candidate, NewSession, ProblemCode } from '../ai-sessions/documents.ts';
import { isAbort, ProblemError } from '../ai-sessions/errors.ts';
import { keep, readKept } from './kept.ts';

/** A request and its key. */
export interface Submitted {
  request: NewSession;
  attempt: Attempt;
}

export type State =
  | { phase: 'empty' }
  /** A past session is being read. */
  | { phase: 'opening'; id: string }
  | { phase: 'generating'; id?: string; submitted?: Submitted; cards: Candidate[]; line: 'good' | 'broken' | 'offline'; stopping: boolean }
  | { phase: 'done'; id: string; submitted?: Submitted; cards: Candidate[]; partial: boolean }
  | { phase: 'failed'; error: unknown; submitted?: Submitted }
  /** A past session without a card. */
  | { phase: 'failed-before'; id: string; code: ProblemCode };

export interface Generation {
  readonly state: State;
  /** Starts a generation; `after`: take the attempt after this one. */
  start(request: NewSession, after?: Attempt): Promise<void>;
  /** Resumes a generation that a reload interrupted; false if there is none. */
  resume(): boolean;
  open(id: string): Promise<void>;
  stop(): Promise<void>;
  /** Shows nothing. A running generation continues without the page. */
  leave(): void;
}

/** A running generation in the tab's own storage, to be resumed after a reload. */
interface Saved {
  userId: string;
  asked?: Submitted;
  place: StreamPlace;
  cards: Candidate[];
}

type Watched = Pick<Saved, 'place' | 'cards'> & { submitted?: Submitted };

const SAVED = 'cards.running';

export function createGeneration(client: AiSessions, userId: string, show: (state: State) => void): Generation {
  let state: State = { phase: 'empty' };
  let watching = new AbortController();

  function set(next: State): void {
    state = next;
    show(state);
  }

  /** Stops watching the session so far. */
  function watchAnew(): AbortSignal {
    watching.abort();
    watching = new AbortController();
    return watching.signal;
  }

  async function watch(events: AsyncGenerator<SessionEvent | LineEvent>, { submitted, place, cards }: Watched, signal: AbortSignal): Promise<void> {
    const withSubmitted = submitted === undefined ? {} : { submitted };
    const running = (more: Partial<Extract<State, { phase: 'generating' }>> = {}) => {
      const stopping = state.phase === 'generating' && state.stopping;
      set({ phase: 'generating', ...(place.id === undefined ? {} : { id: place.id }), ...withSubmitted, cards, line: 'good', stopping, ...more });
    };
    const save = () => keep(sessionStorage, SAVED, { userId, ...(submitted === undefined ? {} : { asked: submitted }), place, cards } satisfies Saved);
    save();
    running({ stopping: false });
    try {
      for await (const event of events) {
        if (signal.aborted) return;
        if (event.type === 'interrupted') {
          running({ line: event.offline ? 'offline' : 'broken' });
          continue;
        }
        if (event.type === 'resumed') {
          running();
          continue;
        }
        place = { ...place, lastEventId: event.lastEventId };
        if (event.type === 'session') {
          place.id = event.id;
          running();
          if (state.phase === 'generating' && state.stopping) await cancel(event.id);
        } else if (event.type === 'candidate') {
          const { type, lastEventId, index, ...card } = event;
          // By its index: an event that is sent twice after a break is shown once.
          cards = Object.assign([...cards], { [index]: card });
          running();
        } else {
          keep(sessionStorage, SAVED, undefined);
          set({ phase: 'done', id: event.id, ...withSubmitted, cards, partial: event.partial });
          return;
        }
        save();
      }
    } catch (error) {
      if (signal.aborted) return;
      // Without a connection the generation may still run: a reload resumes it.
      if (error instanceof ProblemError) keep(sessionStorage, SAVED, undefined);
      set({ phase: 'failed', error, ...withSubmitted });
    }
  }

  async function cancel(id: string): Promise<void> {
    try {
      await client.cancel(id, watching.signal);
    } catch (error) {
      if (isAbort(error)) return;
      // The session has ended already: its stream has the end.
      if (error instanceof ProblemError && error.code === 'not_running') return;
      if (state.phase === 'generating') set({ ...state, stopping: false });
    }
  }

  return {
    get state() {
      return state;
    },
    async start(request, after) {
      const signal = watchAnew();
      try {
        const attempt = await attemptFor(localStorage, userId, request, Date.now(), after);
        const events = client.stream(request, { key: attempt.key, signal });
        await watch(events, { submitted: { request, attempt }, place: {}, cards: [] }, signal);
      } catch (error) {
        // On a page that is not served securely, browsers have no hash function for the key.
        if (!signal.aborted) set({ phase: 'failed', error });
      }
    },
    resume() {
      const saved = readKept<Saved>(sessionStorage, SAVED);
      if (saved === undefined || saved.userId !== userId) return false;
      const { asked: submitted, place, cards } = saved;
      const signal = watchAnew();
      const events =
        submitted === undefined
          ? client.subscribe(place.id ?? '', { ...place, signal })
          : client.stream(submitted.request, { key: submitted.attempt.key, from: place, signal });
      void watch(events, submitted === undefined ? { place, cards } : { submitted, place, cards }, signal);
      return true;
    },
    async open(id) {
      const signal = watchAnew();
      keep(sessionStorage, SAVED, undefined);
      set({ phase: 'opening', id });
      try {
        const session = await client.read(id, signal);
        if (session.status === 'generating') return await watch(client.subscribe(id, { signal }), { place: { id }, cards: [] }, signal);
        if (session.error !== null) set({ phase: 'failed-before', id, code: session.error });
        else set({ phase: 'done', id, cards: session.candidates, partial: session.partial });
      } catch (error) {
        if (!signal.aborted) set({ phase: 'failed', error });
      }
    },
    async stop() {
      if (state.phase !== 'generating' || state.stopping) return;
      const { id } = state;
      set({ ...state, stopping: true });
      // Without an id yet: the first event calls this again.
      if (id !== undefined) await cancel(id);
    },
    leave() {
      watchAnew();
      keep(sessionStorage, SAVED, undefined);
      set({ phase: 'empty' });
    },
  };
}

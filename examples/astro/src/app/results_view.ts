/** The right half of the page: shows a state. */
import type { Candidate } from '../ai-sessions/documents.ts';
import { ProblemError } from '../ai-sessions/errors.ts';
import type { Quota } from '../ai-sessions/quota.ts';
import { cardView, type CardView } from './card_view.ts';
import { csvOf, type Decisions, keepDecisions, readDecisions } from './decisions.ts';
import { announce, byId, copyOf } from './elements.ts';
import type { State } from './generation.ts';
import { cards as cardsInWords, countdown, describe, describeCode, describeLimit, type ProblemText, type Remedy } from './sentences.ts';

export interface ResultsView {
  show(state: State): void;
  /** Moves the focus, and a phone's screen, to the cards. */
  focus(): void;
}

export interface ResultsActions {
  stop(): void;
  makeNew(): void;
  /** Shows the text of the state, with the passage of a card. */
  showText(state: State, card?: Candidate): void;
  remedy(remedy: Remedy): void;
  /** The last received quota. */
  quota(): Quota[];
  /** Called when a limit begins or ends. */
  limited(isLimited: boolean): void;
}

/** A screen reader announces the first card and every fifth one. */
const ANNOUNCE_EACH = 5;

export function resultsView(actions: ResultsActions): ResultsView {
  const section = byId('results');
  const list = byId('cards');
  let views: CardView[] = [];
  let sessionId: string | undefined;
  let decisions: Decisions = {};
  let running: State = { phase: 'empty' };
  let clock: ReturnType<typeof setInterval> | undefined;
  let remedy: Remedy = 'none';

  byId('stop').addEventListener('click', () => {
    actions.stop();
    focus();
  });
  byId('open-text').addEventListener('click', () => actions.showText(running));
  byId('make-new').addEventListener('click', () => actions.makeNew());
  byId('problem-remedy').addEventListener('click', () => {
    if (byId('problem-remedy').getAttribute('aria-disabled') !== 'true') actions.remedy(remedy);
  });
  byId('download').addEventListener('click', () => download(csvOf(cardsOf(running), decisions)));

  function focus(): void {
    byId('results-heading').focus({ preventScroll: true });
    // On a phone the cards are below the text, and a removed list may have been scrolled far.
    const { top } = section.getBoundingClientRect();
    if (top < 0 || top > innerHeight / 3) section.scrollIntoView();
  }

  function showCards(id: string | undefined, cards: Candidate[], more: boolean): void {
    if (id !== sessionId || views.length > cards.length) {
      list.replaceChildren();
      views = [];
      sessionId = id;
      decisions = id === undefined ? {} : readDecisions(id);
    }
    for (const card of cards.slice(views.length)) {
      const view = cardView(card, decisions[card.id] ?? {}, {
        changed(decision) {
          decisions = { ...decisions, [card.id]: decision };
          if (sessionId !== undefined) keepDecisions(sessionId, decisions);
          showProgress(running);
        },
        showSource: () => actions.showText(running, card),
      });
      views.push(view);
      // The card replaces the placeholder at the end: nothing on the screen moves.
      const ghost = ghosts()[0];
      if (ghost === undefined) list.append(view.element);
      else ghost.replaceWith(view.element);
    }
    if (!more) for (const ghost of ghosts()) ghost.remove();
    else if (ghosts().length === 0) list.append(copyOf('ghost-template'));
  }

  const ghosts = () => [...list.querySelectorAll('.ghost')];

  function showProgress(state: State): void {
    byId('progress').textContent = progressOf(state, decisions);
    byId('download').hidden = state.phase !== 'done' || csvOf(state.cards, decisions) === '';
  }

  function showProblem(problemText: ProblemText | undefined, error?: unknown): void {
    clearInterval(clock);
    byId('problem').hidden = problemText === undefined;
    byId('problem-wait').hidden = true;
    actions.limited(false);
    if (problemText === undefined) return;
    const problem = error instanceof ProblemError ? error : undefined;
    remedy = problemText.remedy;
    const sentence = problemText.remedy === 'wait' ? describeLimit(problem?.problem['violated-policies'] ?? [], actions.quota(), problem?.problem.spend) : problemText.sentence;
    byId('problem').dataset['tone'] = problem?.code === 'cancelled' ? 'calm' : 'bad';
    byId('problem-title').textContent = problemText.title;
    byId('problem-sentence').textContent = sentence;
    byId('problem-request').textContent = problem?.problem.status === 500 ? `Request ${problem.problem.request_id}` : '';
    const button = byId('problem-remedy');
    button.hidden = !(problemText.remedy in remedyWords);
    button.textContent = remedyWords[problemText.remedy] ?? '';
    button.setAttribute('aria-disabled', 'false');
    if (problemText.remedy === 'wait' && problem?.retryAfter_s !== undefined) wait(Date.now() + problem.retryAfter_s * 1000);
  }

  /** Disables the button until then, with a countdown beside it. */
  function wait(until_ms: number): void {
    const button = byId('problem-remedy');
    const time = byId<HTMLTimeElement>('problem-until');
    const until = new Date(until_ms);
    time.dateTime = until.toISOString();
    time.textContent = until.toLocaleTimeString('en', { hour: 'numeric', minute: '2-digit', second: '2-digit' });
    byId('problem-wait').hidden = false;
    button.setAttribute('aria-disabled', 'true');
    actions.limited(true);
    const tick = () => {
      const left_ms = until_ms - Date.now();
      byId('problem-countdown').textContent = `in ${countdown(left_ms)}`;
      if (left_ms > 0) return;
      clearInterval(clock);
      byId('problem-wait').hidden = true;
      byId('problem-title').textContent = 'The limit is over';
      byId('problem-sentence').textContent = 'You can make cards again.';
      byId('problem').dataset['tone'] = 'calm';
      button.setAttribute('aria-disabled', 'false');
      actions.limited(false);
    };
    tick();
    clock = setInterval(tick, 250);
  }

  return {
    focus,
    show(state) {
      const before = running;
      running = state;
      section.dataset['phase'] = state.phase;
      section.setAttribute('aria-busy', String(state.phase === 'generating' || state.phase === 'opening'));
      byId('empty').hidden = state.phase !== 'empty';
      byId('stop').hidden = state.phase !== 'generating';
      byId('stop').setAttribute('aria-disabled', String(state.phase === 'generating' && state.stopping));
      byId('open-text').hidden = state.phase !== 'done';
      byId('make-new').hidden = state.phase !== 'done' || state.submitted === undefined;
      const id = 'id' in state ? state.id : undefined;
      showCards(id, cardsOf(state), state.phase === 'generating' || state.phase === 'opening');
      showProgress(state);
      if (state.phase === 'failed') showProblem(describe(state.error), state.error);
      else if (state.phase === 'failed-before') showProblem({ ...describeCode(state.code), remedy: 'none' });
      else showProblem(undefined);
      const sentence = announcement(before, state, decisions);
      if (sentence !== undefined) announce(sentence);
    },
  };
}

const remedyWords: Partial<Record<Remedy, string>> = {
  same: 'Try again',
  new: 'Try again',
  wait: 'Try again',
  edit: 'Change the text',
  'sign-in': 'Sign in',
};

const cardsOf = (state: State) => ('cards' in state ? state.cards : []);

function progressOf(state: State, decisions: Decisions): string {
  switch (state.phase) {
    case 'empty':
      return 'Nothing here yet.';
    case 'opening':
      return 'Opening …';
    case 'generating': {
      const number = state.cards.length;
      const soFar = number === 0 ? '' : ` · ${cardsInWords(number)} so far`;
      if (state.stopping) return `Stopping${soFar}`;
      if (state.line === 'offline') return `Offline, goes on by itself${soFar}`;
      if (state.line === 'broken') return `Connection lost, trying again${soFar}`;
      return number === 0 ? 'The model reads your text' : `Making cards${soFar}`;
    }
    case 'done': {
      const number = (verdict: string) => state.cards.filter(({ id }) => decisions[id]?.verdict === verdict).length;
      const [kept, rejected] = [number('kept'), number('rejected')];
      const open = state.cards.length - kept - rejected;
      const decided = kept + rejected === 0 ? '' : ` · ${kept} kept · ${rejected} rejected · ${open} open`;
      return `${cardsInWords(state.cards.length)}${decided}${remark(state)}`;
    }
    default:
      return 'No cards.';
  }
}

/** The remark on a finished session. */
function remark({ partial, submitted }: Extract<State, { phase: 'done' }>): string {
  if (partial) return ' · The answer broke off; these are whole.';
  if (submitted?.attempt.known === true) return ' · You sent this text before; nothing new was counted.';
  return '';
}

function announcement(before: State, state: State, decisions: Decisions): string | undefined {
  if (state.phase === 'generating') {
    const number = state.cards.length;
    const isNews = number !== cardsOf(before).length && (number === 1 || number % ANNOUNCE_EACH === 0);
    const lineChanged = before.phase === 'generating' && (before.line !== state.line || before.stopping !== state.stopping);
    return before.phase !== 'generating' || isNews || lineChanged ? progressOf(state, decisions) : undefined;
  }
  // An error has its own alert.
  return state.phase === 'done' ? `Ready: ${progressOf(state, decisions)}` : undefined;
}

function download(csv: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([csv], { type: 'text/csv' }));
  link.download = 'cards.csv';
  link.click();
  URL.revokeObjectURL(link.href);
}

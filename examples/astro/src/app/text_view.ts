/** The dialog with the text of a session: the passage of a card, and the passages without a card. Nothing in it can be edited. */
import type { Candidate } from '../ai-sessions/documents.ts';
import { indexText, type Slice, type TextIndex } from '../ai-sessions/passages.ts';
import { byId } from './elements.ts';
import { describeSource, describeUncovered } from './sentences.ts';

export interface TextView {
  /** Shows the text of a session; with a card, its passage. */
  open(shown: ShownText): void;
  close(): void;
}

export interface ShownText {
  cards: readonly Candidate[];
  card?: Candidate;
  /** The stored text; undefined if it cannot be read. */
  text: () => Promise<string | undefined>;
}

export function textView(): TextView {
  const dialog = byId<HTMLDialogElement>('source');
  const about = byId('source-about');
  const body = byId('source-text');
  const toggle = byId('show-uncovered');
  let shown: ShownText | undefined;
  let index: TextIndex | undefined;

  const isToggled = () => toggle.getAttribute('aria-pressed') === 'true';

  function mark(): void {
    if (shown === undefined || index === undefined) return;
    const { text } = index;
    const source = sourceOf(shown.card);
    const slices: (Slice & { kind: string })[] = source === null ? [] : [{ ...index.sliceOf(source), kind: 'source' }];
    const sources = shown.cards.map(sourceOf).filter((each) => each !== null);
    // Cards without any source leave open which passages have one.
    const uncovered = sources.length === 0 ? [] : index.without(sources);
    if (isToggled()) slices.push(...uncovered.map((slice) => ({ ...slice, kind: 'uncovered' })));
    body.replaceChildren();
    let at = 0;
    for (const { start, end, kind } of slices.sort((a, b) => a.start - b.start)) {
      body.append(text.slice(at, start), markOf(text.slice(start, end), kind));
      at = end;
    }
    body.append(text.slice(at));
    const withoutCard = isToggled() ? describeUncovered(sources.length === 0 ? undefined : uncovered.length) : '';
    about.textContent = [describeSource(shown.card), withoutCard].filter((words) => words !== '').join(' ');
  }

  /** Moves the focus to the passage, so that a screen reader reads it, and to the text where there is none. */
  function focus(): void {
    const passage = body.querySelector<HTMLElement>('mark[data-kind=source]');
    (passage ?? body).focus({ preventScroll: true });
    passage?.scrollIntoView({ block: 'center' });
  }

  toggle.addEventListener('click', () => {
    toggle.setAttribute('aria-pressed', String(!isToggled()));
    mark();
    body.querySelector('mark[data-kind=uncovered]')?.scrollIntoView({ block: 'nearest' });
  });
  byId('close-source').addEventListener('click', () => dialog.close());
  dialog.addEventListener('click', ({ target }) => {
    if (target === dialog) dialog.close();
  });
  // The text of a user who signs out does not stay on the page.
  dialog.addEventListener('close', () => {
    [shown, index] = [undefined, undefined];
    body.replaceChildren();
    about.textContent = '';
  });

  return {
    close: () => dialog.close(),
    open(now) {
      shown = now;
      toggle.setAttribute('aria-pressed', String(now.card === undefined));
      about.textContent = 'Loading …';
      dialog.showModal();
      void now.text().then(
        (text) => {
          if (shown !== now) return;
          if (text === undefined) about.textContent = 'The text of these cards is not there any more.';
          else {
            index = indexText(text);
            mark();
            focus();
          }
        },
        () => {
          if (shown === now) about.textContent = 'The text cannot be loaded. Check your connection and try again.';
        },
      );
    },
  };
}

/** The source of a card; cards that this page has kept from before have none. */
const sourceOf = (card?: Candidate) => card?.source ?? null;

function markOf(text: string, kind: string): HTMLElement {
  const mark = document.createElement('mark');
  mark.dataset['kind'] = kind;
  mark.textContent = text;
  if (kind === 'source') {
    mark.tabIndex = -1;
    mark.setAttribute('aria-describedby', 'source-about');
  }
  return mark;
}

/** One proposed card, and the learner's decision on it. */
import type { Candidate } from '../ai-sessions/documents.ts';
import { countCharacters, sanitize } from '../ai-sessions/text.ts';
import type { Decision } from './decisions.ts';
import { copyOf, within } from './elements.ts';
import { adviceOf, count, supportOf } from './sentences.ts';

export interface CardView {
  element: HTMLElement;
}

/** The service's own limits for a card. */
const FRONT_MAX = 200;
const BACK_MAX = 500;

export interface CardActions {
  changed(decision: Decision): void;
  showSource(): void;
}

export function cardView(card: Candidate, decided: Decision, { changed, showSource }: CardActions): CardView {
  const element = copyOf('card-template');
  const words = within(element, '.words');
  const form = within<HTMLFormElement>(element, '.edit');
  const front = within<HTMLTextAreaElement>(form, '[name=front]');
  const back = within<HTMLTextAreaElement>(form, '[name=back]');
  const message = within(form, '.message');
  const button = (what: string) => within<HTMLButtonElement>(element, `[data-do=${what}]`);
  let decision = decided;

  function show(): void {
    const text = decision.edited ?? card;
    within(element, '.front').textContent = text.front;
    within(element, '.back').textContent = text.back;
    within(element, '.prompt').textContent = card.prompt;
    element.dataset['verdict'] = decision.verdict ?? 'open';
    showOrigin();
    for (const verdict of ['kept', 'rejected'] as const) button(verdict).setAttribute('aria-pressed', String(decision.verdict === verdict));
    // Twenty buttons called “Keep” are distinguished by their card.
    for (const what of ['source', 'kept', 'edit', 'rejected']) button(what).setAttribute('aria-label', `${button(what).textContent}: ${text.front}`);
  }

  /** An edited card is the learner's own: neither the label nor the advice is about its words. */
  function showOrigin(): void {
    const isOwn = decision.edited !== undefined;
    const support = isOwn ? undefined : supportOf(card);
    const advice = isOwn ? [] : adviceOf(card);
    within(element, '.support').hidden = support === undefined;
    within(element, '.support').textContent = support ?? '';
    const list = within(element, '.advice');
    list.hidden = advice.length === 0;
    list.replaceChildren(
      ...advice.map((sentence) => {
        const item = document.createElement('li');
        item.textContent = sentence;
        return item;
      }),
    );
    button('source').hidden = (card.source ?? null) === null;
  }

  function decide(next: Decision): void {
    decision = next;
    show();
    changed(decision);
  }

  function edit(isEdited: boolean): void {
    form.hidden = !isEdited;
    words.hidden = isEdited;
    within(element, '.verdict').hidden = isEdited;
    within(element, '.origin').hidden = isEdited;
    if (!isEdited) return button('edit').focus();
    ({ front: front.value, back: back.value } = decision.edited ?? card);
    message.textContent = '';
    front.focus();
  }

  for (const verdict of ['kept', 'rejected'] as const) {
    // A second press reverts the decision.
    button(verdict).addEventListener('click', () => decide({ ...decision, verdict: decision.verdict === verdict ? undefined : verdict }));
  }
  button('source').addEventListener('click', showSource);
  button('edit').addEventListener('click', () => edit(true));
  button('leave').addEventListener('click', () => edit(false));
  form.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') edit(false);
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const edited = { front: sanitize(front.value), back: sanitize(back.value) };
    const wrong = tooLong('front', edited.front, FRONT_MAX) ?? tooLong('back', edited.back, BACK_MAX);
    message.textContent = wrong ?? '';
    if (wrong !== undefined) return;
    // An edited card counts as kept.
    decide({ verdict: 'kept', edited });
    edit(false);
  });

  show();
  return { element };
}

function tooLong(side: string, text: string, max: number): string | undefined {
  const characters = countCharacters(text);
  if (characters === 0) return `The ${side} is empty.`;
  return characters > max ? `The ${side} has ${count(characters)} characters, ${count(max)} are allowed.` : undefined;
}

/** The text, its count, the model and the remaining quota. */
import type { Model, NewSession } from '../ai-sessions/documents.ts';
import type { Quota } from '../ai-sessions/quota.ts';
import { countCharacters, INPUT_TEXT_MAX, INPUT_TEXT_MIN, sanitize } from '../ai-sessions/text.ts';
import { announce, byId } from './elements.ts';
import { keep, readKept } from './kept.ts';
import { count, tellLeft } from './sentences.ts';

export interface ComposerView {
  /** Sets the user, whose draft alone is shown. */
  setOwner(userId: string): void;
  /** Clears the text on the screen. */
  clear(): void;
  setModels(models: Model[]): void;
  modelsFailed(): void;
  setQuota(quota: Quota[]): void;
  /** Disables the button during a generation or a limit, or with an invalid text. */
  setBusy(busy: boolean): void;
  focus(): void;
}

/** A draft belongs to a tab, and survives a reload and an expired sign-in; signing out removes it. */
const DRAFT = 'cards.draft';
type Draft = { owner: string; text: string };

/** A screen reader announces the length of the text when typing pauses. */
const ANNOUNCE_AFTER_MS = 1200;
const RUNS_SHORT = 2;
const PLANNED_BY = 'generations';

type Fits = 'short' | 'yes' | 'long';

export function composerView(submitted: (request: NewSession) => void): ComposerView {
  const form = byId<HTMLFormElement>('composer');
  const text = byId<HTMLTextAreaElement>('text');
  const model = byId<HTMLSelectElement>('model');
  const make = byId('make');
  let owner = '';
  let busy = false;
  let announcing: ReturnType<typeof setTimeout> | undefined;

  function measure(): string {
    const characters = countCharacters(sanitize(text.value));
    const fits: Fits = characters < INPUT_TEXT_MIN ? 'short' : characters > INPUT_TEXT_MAX ? 'long' : 'yes';
    const sentence = `${count(characters)} ${characters === 1 ? 'character' : 'characters'} · ${advice(characters, fits)}`;
    form.dataset['fits'] = fits;
    byId('count').textContent = sentence;
    byId('measure').style.transform = `scaleX(${Math.min(characters / INPUT_TEXT_MAX, 1)})`;
    make.setAttribute('aria-disabled', String(busy || fits !== 'yes'));
    return sentence;
  }

  text.addEventListener('input', () => {
    const sentence = measure();
    keep(sessionStorage, DRAFT, { owner, text: text.value } satisfies Draft);
    clearTimeout(announcing);
    announcing = setTimeout(() => announce(sentence), ANNOUNCE_AFTER_MS);
  });

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    // The button stays reachable and readable, and says why it is disabled.
    if (busy) return;
    const sentence = measure();
    if (form.dataset['fits'] !== 'yes') {
      announce(sentence);
      text.focus();
      return;
    }
    submitted({ input_text: sanitize(text.value), model: model.value });
  });

  return {
    setOwner(userId) {
      owner = userId;
      const draft = readKept<Draft>(sessionStorage, DRAFT);
      text.value = draft?.owner === owner ? draft.text : '';
      measure();
    },
    clear() {
      clearTimeout(announcing);
      text.value = '';
      measure();
    },
    setModels(models) {
      const wanted = model.value;
      model.replaceChildren(...models.map(({ id, default: isDefault }) => new Option(id, id, isDefault, wanted === '' ? isDefault : id === wanted)));
      model.disabled = models.length === 0;
    },
    modelsFailed() {
      model.replaceChildren(new Option('The models cannot be loaded: reload the page', ''));
    },
    setQuota(quota) {
      // People plan by generations; the other limits are shown when they are nearly exhausted.
      const shown = quota.filter(({ policy, remaining }) => policy === PLANNED_BY || remaining <= RUNS_SHORT);
      const order = ({ policy }: Quota) => Number(policy !== PLANNED_BY);
      byId('quota').textContent = shown.toSorted((a, b) => order(a) - order(b)).map(tellLeft).filter((words) => words !== '').join(' · ');
    },
    setBusy(isBusy) {
      busy = isBusy;
      measure();
    },
    focus() {
      text.focus();
    },
  };
}

function advice(characters: number, fits: Fits): string {
  const [min, max] = [count(INPUT_TEXT_MIN), count(INPUT_TEXT_MAX)];
  if (characters === 0) return `${min} to ${max} are needed`;
  if (fits === 'short') return `${count(INPUT_TEXT_MIN - characters)} more to reach ${min}`;
  return fits === 'long' ? `${count(characters - INPUT_TEXT_MAX)} over ${max}` : `fits (${min} to ${max})`;
}

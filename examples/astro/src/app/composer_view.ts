/** The text, its count, the model and what is left of the limits. */
import type { Model, NewSession } from '../ai-sessions/documents.ts';
import type { Quota } from '../ai-sessions/quota.ts';
import { countCharacters, INPUT_TEXT_MAX, INPUT_TEXT_MIN, sanitize } from '../ai-sessions/text.ts';
import { announce, byId } from './elements.ts';
import { keep, readKept } from './kept.ts';
import { count, tellLeft } from './sentences.ts';

export interface ComposerView {
  setModels(models: Model[]): void;
  setQuota(quota: Quota[]): void;
  /** While something runs, or a limit holds, or the text does not fit, the button says no. */
  setBusy(busy: boolean): void;
  focus(): void;
}

/** Drafts survive a reload and a sign-in; a tab's own. */
const DRAFT = 'cards.draft';
/** A listener hears how long the text is when the typing rests. */
const ANNOUNCE_AFTER_MS = 1200;

export function composerView(submitted: (request: NewSession) => void): ComposerView {
  const form = byId<HTMLFormElement>('composer');
  const text = byId<HTMLTextAreaElement>('text');
  const model = byId<HTMLSelectElement>('model');
  const make = byId('make');
  let busy = false;
  let announcing: ReturnType<typeof setTimeout> | undefined;

  /** Empty, if the text fits. */
  function advice(characters: number): string {
    if (characters < INPUT_TEXT_MIN) return `${count(INPUT_TEXT_MIN - characters)} to go`;
    return characters > INPUT_TEXT_MAX ? `${count(characters - INPUT_TEXT_MAX)} too many` : '';
  }

  function measure(): string {
    const characters = countCharacters(sanitize(text.value));
    const advised = advice(characters);
    form.dataset['fits'] = characters > INPUT_TEXT_MAX ? 'long' : advised === '' ? 'yes' : 'short';
    byId('count-number').textContent = count(characters);
    byId('count-advice').textContent = characters === 0 || advised === '' ? '' : ` · ${advised}`;
    byId('measure').style.transform = `scaleX(${Math.min(characters / INPUT_TEXT_MAX, 1)})`;
    make.setAttribute('aria-disabled', String(busy || advised !== ''));
    return `${count(characters)} characters${advised === '' ? '' : `, ${advised}`}`;
  }

  text.value = readKept<string>(sessionStorage, DRAFT) ?? '';
  measure();

  text.addEventListener('input', () => {
    const sentence = measure();
    keep(sessionStorage, DRAFT, text.value);
    clearTimeout(announcing);
    announcing = setTimeout(() => announce(sentence), ANNOUNCE_AFTER_MS);
  });

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    // The button stays a control that can be reached and read out; it just says why not.
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
    setModels(models) {
      const wanted = model.value;
      model.replaceChildren(...models.map(({ id, default: isDefault }) => new Option(id, id, isDefault, wanted === '' ? isDefault : id === wanted)));
      model.disabled = models.length === 0;
    },
    setQuota(quota) {
      // The window that lasts longest is the one that people plan by.
      const byWindow = quota.toSorted((a, b) => (b.window_s ?? 0) - (a.window_s ?? 0));
      byId('quota').textContent = byWindow.map(tellLeft).join(' · ');
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

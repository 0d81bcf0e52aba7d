/** The sentence for each problem, and its remedy. */
import type { Candidate, Note, ProblemCode, SpendLimit } from '../ai-sessions/documents.ts';
import { ConnectionError, ProblemError } from '../ai-sessions/errors.ts';
import type { Quota } from '../ai-sessions/quota.ts';

/** `same`: retry with the same key. `new`: a new attempt, because the key would replay the failure. */
export type Remedy = 'same' | 'new' | 'sign-in' | 'edit' | 'wait' | 'none';

export interface ProblemText {
  title: string;
  sentence: string;
  remedy: Remedy;
}

const texts: Record<ProblemCode, ProblemText> = {
  missing_token: { title: 'Signed out', sentence: 'Sign in to make cards. Your text stays here.', remedy: 'sign-in' },
  invalid_token: { title: 'Signed out', sentence: 'Your sign-in is not valid any more. Sign in again; your text stays here.', remedy: 'sign-in' },
  expired_token: { title: 'Signed out', sentence: 'Your sign-in has run out. Sign in again; your text stays here.', remedy: 'sign-in' },
  anonymous_not_allowed: { title: 'An account is needed', sentence: 'Guests cannot make cards here. Sign in with an account.', remedy: 'sign-in' },

  rate_limited: { title: 'Limit reached', sentence: 'You have reached a limit.', remedy: 'wait' },
  ai_unavailable: { title: 'The model is away', sentence: 'The model cannot be reached at the moment. Nothing was counted: try again, or take another model.', remedy: 'same' },
  ai_timeout: { title: 'The model took too long', sentence: 'The model did not finish in time. Nothing was counted: try again, or take another model.', remedy: 'same' },
  ai_invalid_response: { title: 'No usable card', sentence: 'The model’s answer had no usable card in it. Nothing was counted: try again, or take another model.', remedy: 'same' },
  ai_refused: { title: 'The model refused', sentence: 'The model does not want to make cards of this text. Change the text and try again. This attempt was counted.', remedy: 'edit' },
  ai_misconfigured: { title: 'This model is not set up', sentence: 'This model cannot be used here until its operator has mended it. Nothing was counted: take another model.', remedy: 'new' },
  cancelled: { title: 'Stopped', sentence: 'You stopped it before the first card was there. Nothing was counted.', remedy: 'same' },
  database_error: { title: 'Not stored yet', sentence: 'The cards could not be stored at the moment. They are kept: try again in a minute and you get them without a new count.', remedy: 'same' },

  validation_failed: { title: 'The text does not fit', sentence: 'The service does not take this text or this model.', remedy: 'edit' },
  malformed_json: { title: 'Not understood', sentence: 'The service did not understand the page. Reload it and try again.', remedy: 'none' },
  invalid_parameter: { title: 'Not understood', sentence: 'The service did not understand the page. Reload it and try again.', remedy: 'none' },
  method_not_allowed: { title: 'Not understood', sentence: 'The page and the service do not fit together. Reload the page and try again.', remedy: 'none' },
  unsupported_media_type: { title: 'Not understood', sentence: 'The page and the service do not fit together. Reload the page and try again.', remedy: 'none' },
  body_too_large: { title: 'The text is too long', sentence: 'The text is far too long. Take a part of it.', remedy: 'edit' },
  not_found: { title: 'Not found', sentence: 'There is no such session, or it is not yours.', remedy: 'none' },
  not_running: { title: 'Ended already', sentence: 'There is nothing to stop: it has ended already.', remedy: 'none' },
  idempotency_in_progress: { title: 'Already running', sentence: 'These cards are being made already. Try again in a moment to see them.', remedy: 'same' },
  idempotency_key_reused: { title: 'Mixed up', sentence: 'The page mixed up two texts. Try again.', remedy: 'new' },

  rate_limiter_unavailable: { title: 'Not possible right now', sentence: 'Your limits cannot be checked at the moment. Try again in a minute.', remedy: 'same' },
  auth_unavailable: { title: 'Not possible right now', sentence: 'Your sign-in cannot be checked at the moment. Try again in a minute.', remedy: 'same' },
  internal: { title: 'Something broke', sentence: 'Something in the service is broken. Try again later.', remedy: 'same' },
};

const unknown: ProblemText = { title: 'Something went wrong', sentence: 'The service said something that this page does not know. Reload it and try again.', remedy: 'none' };
const unreachable: ProblemText = { title: 'No connection', sentence: 'The service cannot be reached. Check your connection and try again; nothing is counted twice.', remedy: 'same' };
const bug: ProblemText = { title: 'Something went wrong', sentence: 'The page itself has a fault. Reload it and try again; nothing is counted twice.', remedy: 'same' };

export function describe(error: unknown): ProblemText {
  if (error instanceof ConnectionError) return unreachable;
  if (!(error instanceof ProblemError)) return bug;
  const { code, problem } = error;
  const length = problem.errors?.find((each) => each.field === 'input_text' && each.code === 'length');
  if (code === 'validation_failed' && length !== undefined) {
    return { ...texts.validation_failed, sentence: `The text has ${count(length.actual ?? 0)} characters. ${count(length.min ?? 0)} to ${count(length.max ?? 0)} are allowed.` };
  }
  if (code === 'validation_failed' && problem.errors?.some(({ field }) => field === 'model') === true) {
    return { ...texts.validation_failed, title: 'The model is gone', sentence: 'This model is not offered any more. Take another one.' };
  }
  return describeCode(code);
}

/** Describes the failure of a session by its code. */
export const describeCode = (code: ProblemCode): ProblemText => texts[code] ?? unknown;

/** The counted unit of each limit. */
const counted: { [policy: string]: string } = { burst: 'request', generations: 'generation', attempts: 'model call' };

/** Describes the violated limit. `quota` and `spend` are those of the same response. */
export function describeLimit(policies: string[], quota: Quota[], spend?: SpendLimit): string {
  const [policy = ''] = policies;
  if (policy === 'spend' && spend !== undefined) {
    return `Your cards may cost ${dollars(spend.limit)} in ${span(spend.window_s)}. ${dollars(spend.remaining)} of that is left, and cards from this text can cost more.`;
  }
  const { limit, window_s } = quota.find((each) => each.policy === policy) ?? {};
  if (policy === 'concurrent') return 'Too many cards of yours are being made, stored or watched at this moment. Wait until some of them are done, or close other tabs.';
  if (policy === 'reads') return 'Your cards were requested too often in a short time. Wait a moment.';
  const what = counted[policy];
  if (what === undefined || limit === undefined || window_s === undefined) return texts.rate_limited.sentence;
  return `You have used ${limit === 1 ? `the one ${what}` : `all ${count(limit)} ${what}s`} of ${span(window_s)}.`;
}

/** The remaining quota of a limit in few words; empty for an unknown limit. */
export function tellLeft({ policy, limit, window_s, remaining }: Quota): string {
  const what = counted[policy];
  if (what === undefined) return '';
  const of = limit === undefined ? '' : ` of ${count(limit)}`;
  return `${count(remaining)}${of} ${what}s left${window_s === undefined ? '' : ` in ${span(window_s)}`}`;
}

/** `$0.50`: an amount of US dollars, as the service writes it. */
const dollars = (amount: string) =>
  Number(amount).toLocaleString('en', { style: 'currency', currency: 'USD', minimumFractionDigits: 2, maximumFractionDigits: 4, roundingMode: 'floor' } as Intl.NumberFormatOptions);

/** `24 hours`, `one minute`, `90 seconds`. */
function span(seconds: number): string {
  const units: [string, number][] = [['hour', 3600], ['minute', 60], ['second', 1]];
  const [unit, unit_s] = units.find(([, unit_s]) => seconds % unit_s === 0) ?? ['second', 1];
  const n = seconds / unit_s;
  return n === 1 ? `one ${unit}` : `${count(n)} ${unit}s`;
}

/** `3:05 min`, `12 s`: for a countdown. */
export function countdown(ms: number): string {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const two = (n: number) => String(n).padStart(2, '0');
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds % 60)} h` : `${minutes}:${two(seconds % 60)} min`;
}

/** The label of a card whose answer the text does not support; undefined for one that it does. */
export function supportOf({ source, supported }: Candidate): string | undefined {
  if (source === undefined || source === null) return 'No source: the model named no passage of your text. Check this card.';
  return supported === false ? 'No support: the answer is not in the passage that the card comes from. Check this card.' : undefined;
}

const advice: Record<Note, string> = {
  answer_in_question: 'The question gives the answer away.',
  yes_or_no: 'The answer is only yes or no: ask for the fact itself.',
  refers_to_text: 'It refers to the text, which you will not see when you learn.',
  near_duplicate: 'Another card asks for nearly the same.',
  other_language: 'It is not in the language of your text.',
  list_answer: 'The answer is a list: one card for each item is easier to learn.',
};

/** The advice on a card; a note of a later version of the service is left out. */
export const adviceOf = ({ notes }: Candidate): string[] => (notes ?? []).map((note) => advice[note]).filter((sentence) => sentence !== undefined);

/** The sentence above the text. */
export function describeSource(card: Candidate | undefined): string {
  if (card === undefined) return '';
  const support = card.supported === false ? ' The answer is not in it: check this card.' : '';
  return `The passage of “${card.front}” is marked.${support}`;
}

/** The sentence about the passages without a card; their number is undefined if no card has a source. */
export function describeUncovered(number: number | undefined): string {
  if (number === undefined) return 'It is not known which passages have a card: the sources of the cards are unknown.';
  if (number === 0) return 'Every passage has a card.';
  return number === 1 ? '1 passage without a card is marked.' : `${count(number)} passages without a card are marked.`;
}

export const count = (n: number) => n.toLocaleString('en');

export const cards = (n: number) => (n === 1 ? '1 card' : `${count(n)} cards`);

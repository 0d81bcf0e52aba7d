/**
 * The page: connects the user, the requests and the views, which are independent of each other.
 * `#<id>` in the address is the session on the screen, so that a reload, a link and the back button find it.
 */
import { connect } from '../ai-sessions/client.ts';
import type { Candidate, NewSession } from '../ai-sessions/documents.ts';
import { ProblemError } from '../ai-sessions/errors.ts';
import type { Quota } from '../ai-sessions/quota.ts';
import { openAccount, type User } from './account.ts';
import { composerView } from './composer_view.ts';
import { byId } from './elements.ts';
import { createGeneration, type Generation, type State } from './generation.ts';
import { forgetAll, forgetIfSignedOut, forgetKept, keep, readKept } from './kept.ts';
import { pastView } from './past_view.ts';
import { resultsView } from './results_view.ts';
import type { Remedy } from './sentences.ts';
import { readSettings } from './settings.ts';
import { signInView } from './sign_in_view.ts';
import { textView } from './text_view.ts';

const settings = readSettings();
const account = openAccount(settings);
let user: User | undefined;
let generation: Generation | undefined;
let quota: Quota[] = [];
/** The remaining quota before the last generation. */
let quotaBefore: Quota[] = [];
let limited = false;

forgetIfSignedOut();

const client = connect({
  url: settings.aiSessionsUrl,
  accessToken: account.accessToken,
  onQuota: setQuota,
});

const composer = composerView((request) => start(request));
const results = resultsView({
  stop: () => void generation?.stop(),
  makeNew() {
    const state = generation?.state;
    if (state?.phase === 'done' && state.submitted !== undefined) start(state.submitted.request, true);
  },
  showText,
  remedy: (remedy) => mend(remedy),
  quota: () => quota,
  limited(isLimited) {
    limited = isLimited;
    showBusy();
  },
});
const signIn = signInView(account);
pastView(() => client);
const text = textView();

account.watch((now) => {
  const hasSignedIn = now !== undefined && signIn.isShown;
  user = now;
  generation?.leave();
  signIn.show(user === undefined);
  byId('workspace').hidden = user === undefined;
  byId('account').hidden = user === undefined;
  if (user === undefined) return signIn.focus();
  byId('email').textContent = user.email || 'Guest';
  composer.setOwner(user.id);
  setQuota(rememberedQuota(user));
  generation = createGeneration(client, user.id, show);
  void loadModels();
  if (!generation.resume()) openFromAddress();
  // The form with the focus is hidden now.
  if (hasSignedIn) composer.focus();
});

byId('sign-out').addEventListener('click', () => {
  leaveNothing();
  forgetAll();
  // Again, for data that was written meanwhile.
  void account.signOut().then(forgetKept);
});

// A sign-out in another tab, also during a sleep of this one.
window.addEventListener('storage', forgetWithOthers);
window.addEventListener('pageshow', forgetWithOthers);

function forgetWithOthers(): void {
  if (forgetIfSignedOut()) leaveNothing();
}

/** Removes personal data from the screen. */
function leaveNothing(): void {
  history.replaceState(null, '', location.pathname);
  text.close();
  generation?.leave();
  composer.clear();
}

window.addEventListener('hashchange', openFromAddress);
for (const change of ['online', 'offline']) window.addEventListener(change, showOffline);
showOffline();

function show(state: State): void {
  // Set first, because the views read it.
  if ('id' in state && state.id !== undefined && hashId() !== state.id) history.replaceState(null, '', `#${state.id}`);
  results.show(state);
  showBusy();
  // The headers of a stream are sent before it fails, and so before the refund.
  if (state.phase === 'failed' && wasRefunded(state.error)) setQuota(quotaBefore);
}

/** Whether a failed generation was refunded: not if the text was refused. */
const wasRefunded = (error: unknown) => error instanceof ProblemError && error.problem.retryable !== undefined && error.code !== 'ai_refused' && error.code !== 'database_error';

function setQuota(received: Quota[]): void {
  quota = received;
  composer.setQuota(quota);
  if (user !== undefined) keep(localStorage, quotaItem(user), { at_ms: Date.now(), quota } satisfies Remembered);
}

function start(request: NewSession, anew = false): void {
  const state = generation?.state;
  const shown = state !== undefined && 'submitted' in state ? state.submitted?.attempt : undefined;
  quotaBefore = quota;
  void generation?.start(request, anew ? shown : undefined);
  results.focus();
}

function showText(state: State, card?: Candidate): void {
  if (!('cards' in state)) return;
  const { cards } = state;
  // The page sanitizes as the service does: what it sent is what is stored.
  const sent = state.submitted?.request.input_text;
  const load = async () => sent ?? (state.id === undefined ? undefined : await account.textOf(state.id));
  text.open({ cards, text: load, ...(card === undefined ? {} : { card }) });
}

function mend(remedy: Remedy): void {
  const state = generation?.state;
  if (remedy === 'edit') return composer.focus();
  if (remedy === 'sign-in') return void account.signOut();
  if (state?.phase !== 'failed') return;
  if (state.submitted === undefined) return openFromAddress();
  start(state.submitted.request, remedy === 'new');
}

function openFromAddress(): void {
  const id = hashId();
  if (id === undefined || generation === undefined) return;
  const { state } = generation;
  if ('id' in state && state.id === id) return;
  void generation.open(id);
}

function hashId(): string | undefined {
  return /^#([0-9a-f-]{36})$/.exec(location.hash)?.[1];
}

async function loadModels(): Promise<void> {
  await client.models().then(composer.setModels, composer.modelsFailed);
}

function showBusy(): void {
  const phase = generation?.state.phase;
  composer.setBusy(phase === 'generating' || phase === 'opening' || limited);
}

function showOffline(): void {
  byId('offline').textContent = navigator.onLine ? '' : 'You are offline. What is being made goes on without you.';
}

const quotaItem = ({ id }: User) => `cards.quota.${id}`;

/** `at_ms` is when it was received. */
interface Remembered {
  at_ms: number;
  quota: Quota[];
}

/** The last received quota, as far as its windows have not ended. */
function rememberedQuota(user: User): Quota[] {
  const { at_ms, quota } = readKept<Remembered>(localStorage, quotaItem(user)) ?? { at_ms: 0, quota: [] };
  const age_s = (Date.now() - at_ms) / 1000;
  return quota.filter(({ reset_s }) => reset_s === undefined || age_s < reset_s);
}

/** The page's storage in the browser. Without it (full, forbidden) the page works, with less convenience. */

export function readKept<T>(storage: Storage, name: string): T | undefined {
  try {
    const text = storage.getItem(name);
    return text === null ? undefined : (JSON.parse(text) as T);
  } catch {
    return undefined;
  }
}

export function keep(storage: Storage, name: string, value: unknown): void {
  try {
    if (value === undefined) storage.removeItem(name);
    else storage.setItem(name, JSON.stringify(value));
  } catch {
    // See above.
  }
}

/** The prefix of this page's keys in the storages of its origin. */
const PREFIXES = ['cards.', 'ai-sessions.'];
/** In the browser: the time of the last sign-out. In a tab: the last sign-out after which the tab was cleared. */
const SIGNED_OUT = 'cards.signed-out';

/** Removes the stored data of all users: drafts, cards, decisions, attempts. Other tabs clear their own. */
export function forgetAll(): void {
  forgetKept();
  keep(localStorage, SIGNED_OUT, Date.now());
  forgetIfSignedOut();
}

/** Removes the stored data of this tab alone. */
export function forgetKept(): void {
  for (const storage of [localStorage, sessionStorage]) forget(storage);
}

/** Removes the data of this tab if there was a sign-out in any tab since. Returns whether there was. */
export function forgetIfSignedOut(): boolean {
  const signedOut_ms = readKept<number>(localStorage, SIGNED_OUT) ?? 0;
  if (signedOut_ms === (readKept<number>(sessionStorage, SIGNED_OUT) ?? 0)) return false;
  forget(sessionStorage);
  keep(sessionStorage, SIGNED_OUT, signedOut_ms);
  return true;
}

function forget(storage: Storage): void {
  try {
    const names = Array.from({ length: storage.length }, (_, index) => storage.key(index) ?? '');
    for (const name of names.filter((name) => name !== SIGNED_OUT && PREFIXES.some((prefix) => name.startsWith(prefix)))) storage.removeItem(name);
  } catch {
    // A forbidden storage is empty.
  }
}

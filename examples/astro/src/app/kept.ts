/** What the browser keeps for the page. A storage that is full or forbidden costs a convenience, never the page. */

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

/** What belongs to this page in the storages of its origin. */
const PREFIXES = ['cards.', 'ai-sessions.'];
/** In the browser: when somebody signed out last. In a tab: up to which sign-out the tab has forgotten. */
const SIGNED_OUT = 'cards.signed-out';

/** Removes what the page has kept, of every user: drafts, cards, decisions, attempts. Other tabs do the same for their own. */
export function forgetAll(): void {
  forgetKept();
  keep(localStorage, SIGNED_OUT, Date.now());
  forgetIfSignedOut();
}

/** The same in this tab alone. */
export function forgetKept(): void {
  for (const storage of [localStorage, sessionStorage]) forget(storage);
}

/** Removes what this tab has kept when somebody has signed out since, in any tab. Whether somebody has. */
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
    // A storage that is forbidden keeps nothing.
  }
}

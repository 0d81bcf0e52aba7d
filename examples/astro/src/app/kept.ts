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

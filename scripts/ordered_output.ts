/** The output of lanes that run side by side, shown one lane after the other. */
export class OrderedOutput {
  /** The lane whose output is shown as it arrives. */
  #shown = 0;
  readonly #ended = new Set<number>();
  /** The output of the lanes after it. */
  readonly #kept = new Map<number, string>();
  readonly #show: (text: string) => void;

  constructor(show: (text: string) => void) {
    this.#show = show;
  }

  write(lane: number, text: string): void {
    if (lane === this.#shown) this.#show(text);
    else this.#kept.set(lane, (this.#kept.get(lane) ?? '') + text);
  }

  end(lane: number): void {
    this.#ended.add(lane);
    while (this.#ended.has(this.#shown)) {
      this.#shown += 1;
      this.#show(this.#kept.get(this.#shown) ?? '');
    }
  }
}

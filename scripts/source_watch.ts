/** Calls back when the crate's sources change, once for a burst of changes and never concurrently. */
import { type FSWatcher, watch } from 'node:fs';
import { join } from 'node:path';
import { edgeFunctionFolder, root } from './paths.ts';

/** Editors and git write several files at once. */
const quietMs = 100;

export function watchSources(changed: () => Promise<void>): { close(): void } {
  let timer: NodeJS.Timeout | undefined;
  let running = false;
  let again = false;
  const call = async () => {
    if (running) {
      again = true;
      return;
    }
    running = true;
    do {
      again = false;
      await changed();
    } while (again);
    running = false;
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(() => void call(), quietMs);
  };
  const watchers: FSWatcher[] = [
    watch(join(root, 'src'), { recursive: true }, soon),
    // The folder, not the file: an editor that saves by renaming would leave the watch on the old file.
    watch(root, (_, name) => {
      if (name === 'Cargo.toml') soon();
    }),
    watch(edgeFunctionFolder, (_, name) => {
      if (name === 'index.ts') soon();
    }),
  ];
  return {
    close() {
      clearTimeout(timer);
      for (const watcher of watchers) watcher.close();
    },
  };
}

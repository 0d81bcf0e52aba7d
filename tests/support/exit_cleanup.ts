// Undoes the work of this process if it ends without closing its world: by a signal, an exception or process.exit.
// Only synchronous work is possible then, so an undo kills child processes and removes folders, nothing more.

const undos = new Set<() => void>();
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Registers `undo` for an unplanned end; the returned function removes it. */
export function onUnplannedExit(undo: () => void): () => void {
  if (undos.size === 0) listen();
  undos.add(undo);
  return () => {
    undos.delete(undo);
    if (undos.size === 0) stopListening();
  };
}

function listen(): void {
  process.on('exit', undoAll);
  for (const signal of SIGNALS) process.on(signal, endBySignal);
}

function stopListening(): void {
  process.off('exit', undoAll);
  for (const signal of SIGNALS) process.off(signal, endBySignal);
}

function undoAll(): void {
  for (const undo of undos) {
    try {
      undo();
    } catch {
      // The process is ending: run the other undos.
    }
  }
  undos.clear();
}

/** A listener replaces the default of a signal: end the process as the default does, unless the program has its own handler. */
function endBySignal(signal: NodeJS.Signals): void {
  if (process.listenerCount(signal) > 1) return;
  undoAll();
  stopListening();
  process.kill(process.pid, signal);
}

// JavaScript that gets at a user's object from the inside, for tests that break the platform under it, or count what it asks of
// the platform. It is put before the module (`startAfter`).

/**
 * Runs `script` with the `state` of each object as soon as there is one. `trap_guard.js` makes a weak reference to it, which is
 * the one global that an object's state is passed to.
 */
export function withObjectState(script: string): string {
  return `{
  const { WeakRef: Plain } = globalThis;
  globalThis.WeakRef = class extends Plain {
    constructor(target) {
      super(target);
      if (target?.storage?.setAlarm !== undefined) (function (state) { ${script} })(target);
    }
  };
}
`;
}

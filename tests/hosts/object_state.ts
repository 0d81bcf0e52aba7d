// JavaScript with access to the state of a user object, for tests that break the platform under it or count its calls. It runs
// before the module (`startAfter`).

/**
 * Runs `script` with the `state` of each new object. `src/cloudflare/worker.js` makes a weak reference to it, the only global that
 * receives an object's state.
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

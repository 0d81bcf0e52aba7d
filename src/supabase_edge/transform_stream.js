// The streams that the module makes, for clients. One that is open when the module is torn down would stay open and silent: it is
// cut, so that its subscriber reconnects.
//
// `scripts/build.ts` injects this class for the global one.

import { waiting } from '../web/trap_guard.js';

export class TransformStream extends globalThis.TransformStream {
  constructor() {
    let tornDown;
    const end = () => waiting.delete(tornDown);
    const start = (controller) => {
      tornDown = (trap) => {
        end();
        controller.error(trap);
      };
      waiting.add(tornDown);
    };
    super({ start, flush: end, cancel: end });
  }
}

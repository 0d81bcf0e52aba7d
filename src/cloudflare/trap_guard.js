// The trap guard on Cloudflare. Generations run in Durable Objects, whose alarm resumes them. An open stream of an object would
// stay open and silent after a trap: so each object waits for a trap too, and is reset, which cuts its streams, so that
// subscribers reconnect.
//
// `scripts/build.ts` wraps the output of worker-build ("worker-build" below) in this file.

import Worker, { UserSessions as Module } from 'worker-build';
import { guarded, internal, waiting } from '../web/trap_guard.js';

/** Removes the callback of an evicted object. */
const evicted = new FinalizationRegistry((tornDown) => waiting.delete(tornDown));

export default {
  async fetch(request, env, context) {
    try {
      return await guarded(() => new Worker(context, env).fetch(request));
    } catch (error) {
      return internal(request, env, new URL(request.url).origin, error);
    }
  },
};

/** The user object. The edge repeats a failed call once, on a new instance; the platform repeats a failed alarm. */
export class UserSessions {
  #module;

  constructor(state, env) {
    this.#module = new Module(state, env);
    const object = new WeakRef(state);
    const trapped = new Promise((tornDown) => {
      waiting.add(tornDown);
      evicted.register(state, tornDown);
    });
    // In the object's own context, the only one in which it can be reset.
    trapped.then(() => object.deref()?.abort('torn down'));
  }

  fetch(request) {
    return guarded(() => this.#module.fetch(request));
  }

  alarm() {
    return guarded(() => this.#module.alarm());
  }
}

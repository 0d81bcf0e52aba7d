// The Worker on Cloudflare: its fetch handler and its class of objects, which call the module behind the trap guard. Generations run
// in Durable Objects, whose alarm resumes them. An open stream of an object would stay open and silent after a trap: so each object
// waits for a trap too, and is reset, which cuts its streams, so that subscribers reconnect.
//
// `scripts/build.ts` bundles this file with the output of wasm-bindgen ("wasm-bindgen" below).

import * as workers from 'cloudflare:workers';
import { fetch, UserSessions as Module } from 'wasm-bindgen';
import { guarded, instance, internal, waiting } from '../web/trap_guard.js';

/** Removes the callback of an evicted object. */
const evicted = new FinalizationRegistry((tornDown) => waiting.delete(tornDown));

export default {
  async fetch(request, env, context) {
    try {
      return await guarded((resolve) => fetch(request, env, context, resolve));
    } catch (error) {
      return internal(request, env, new URL(request.url).origin, error);
    }
  },
};

/** The user object. The edge repeats a failed call once, on a new instance; the platform repeats a failed alarm. */
export class UserSessions extends workers.DurableObject {
  #module;
  #instance;

  constructor(state, env) {
    super(state, env);
    const object = new WeakRef(state);
    const trapped = new Promise((tornDown) => {
      waiting.add(tornDown);
      evicted.register(state, tornDown);
    });
    // In the object's own context, the only one in which it can be reset.
    trapped.then(() => object.deref()?.abort('torn down'));
  }

  /** The object in the current instance of the module. */
  get #current() {
    if (this.#instance !== instance) {
      // `tracing` came to the runtime later than the class.
      this.#module = new Module(this.ctx, this.env, workers.tracing);
      this.#instance = instance;
    }
    return this.#module;
  }

  /** Executes a command of the edge. Called from the Worker only: a Durable Object has no address. */
  execute(command) {
    return guarded((resolve, reject) => this.#current.execute(command, resolve, reject));
  }

  alarm() {
    return guarded((resolve, reject) => this.#current.alarm().then(resolve, reject));
  }
}

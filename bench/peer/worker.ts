/** The peer as a Cloudflare Worker, with a Durable Object for each user that counts the requests. */
import { appWith } from './app.ts';
import type { Environment } from './environment.ts';
import { limitWith } from './limit.ts';
import type { Limiter } from './limiter.ts';

export { Limiter } from './limiter.ts';

type WorkerEnvironment = Environment & { LIMITER: DurableObjectNamespace<Limiter> };

const limit = limitWith((c) => (c.env as WorkerEnvironment).LIMITER.getByName(c.get('userId')).take());

export default appWith(limit, '/');

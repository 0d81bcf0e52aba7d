// The hosts of the crash tests: how each is killed, and what resumes its generations. Contains no assertion.

import { eventually, read, type Service, type SignedIn } from '../service/service.ts';
import { expireLeases, generations } from './isolates.ts';
import { type EdgeService, startOnSupabaseEdge } from './supabase_edge.ts';
import { startOnWorkerd, type WorkerdService } from './workerd.ts';

/** A host whose process can be killed. */
export type CrashHost<S extends Service> = {
  /** Whether an alarm resumes generations, without a request. */
  hasAlarm: boolean;
  start(variables: Record<string, string>): Promise<S>;
  /** Sends `kill -9`, and starts on the same storage. */
  kill(service: S): Promise<void>;
  /** Resumes the generations of a user, no sooner than so long after they were accepted. */
  resume(service: S, user: SignedIn, after_ms: number): Promise<void>;
};

/** An alarm comes later than any requested time. */
export const onWorkerd: CrashHost<WorkerdService> = {
  hasAlarm: true,
  start: startOnWorkerd,
  kill: (service) => service.kill(),
  async resume() {},
};

/** The owner returns, in a new isolate. A test does not wait for the leases of the killed one. */
export const onSupabaseEdge: CrashHost<EdgeService> = {
  hasAlarm: false,
  start: startOnSupabaseEdge,
  async kill(service) {
    await service.restart();
    await expireLeases(service);
  },
  async resume(service, user, after_ms) {
    const isOld = `select from ai_sessions.generations where user_id = $1 and started_at + $2 * interval '1 ms' > now()`;
    await eventually('the deadline passes', async () => ((await service.world.sql(isOld, [user.id, after_ms])).length === 0 ? true : undefined));
    for (const { id } of await generations(service, user)) await read(service, user.token, id);
  },
};

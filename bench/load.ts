/** Sends requests, some at a time, and says what they cost. */
import { Agent } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { type Answer, type Ask, monotonicMs, send } from './client.ts';
import { cpuMs } from './processes.ts';
import type { Target } from './targets.ts';
import type { Upstream } from './upstream.ts';

export type Load = {
  /** CPU of the workerd process, per request. */
  cpu_ms: number;
  perSecond: number;
  latencies_ms: number[];
};

/** What the upstream and this client had of one core, at most in any load, and all that they took. */
export const use = { upstream: { share_max: 0, cpu_ms: 0 }, client: { share_max: 0, cpu_ms: 0 } };

/** What is done after an answer belongs to it: so long it is waited for. */
const AFTERWARDS_MS = 30;

export async function load(target: Target, upstream: Upstream, asks: Ask[], atOnce: number, isGood: (answer: Answer) => boolean): Promise<Load> {
  const [cpuBefore_ms, upstreamBefore_ms] = await Promise.all([cpuMs(target.pid), cpuMs(upstream.pid)]);
  const clientBefore = process.cpuUsage();
  const start_ms = monotonicMs();
  const latencies_ms: number[] = [];
  // Of this load alone: workerd closes what is idle for some seconds, in the moment in which it may be used again.
  const connections = new Agent({ keepAlive: true });
  let next = 0;
  const one = async () => {
    for (let ask = asks[next++]; ask !== undefined; ask = asks[next++]) {
      const answer = await send(target.url, ask, connections);
      if (!isGood(answer)) throw new Error(`${target.name} answers ${ask.method} ${ask.path} with ${answer.status}: ${answer.body.slice(-300)}`);
      latencies_ms.push(answer.ms);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, one));
  const wall_ms = monotonicMs() - start_ms;
  connections.destroy();
  const client = process.cpuUsage(clientBefore);
  count(use.client, (client.user + client.system) / 1000, wall_ms);
  count(use.upstream, (await cpuMs(upstream.pid)) - upstreamBefore_ms, wall_ms);
  await pause(AFTERWARDS_MS);
  const cpu_ms = (await cpuMs(target.pid)) - cpuBefore_ms;
  return { cpu_ms: cpu_ms / asks.length, perSecond: (asks.length / wall_ms) * 1000, latencies_ms };
}

function count(of: { share_max: number; cpu_ms: number }, cpu_ms: number, wall_ms: number): void {
  of.cpu_ms += cpu_ms;
  of.share_max = Math.max(of.share_max, cpu_ms / wall_ms);
}

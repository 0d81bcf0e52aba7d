/** Sends concurrent requests and measures their cost. */
import { Agent } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { type Answer, type HttpRequest, monotonicMs, send } from './client.ts';
import { cpuMs, firstThreadCpuMs, machineCpuMs } from './processes.ts';
import type { Target } from './targets.ts';
import type { Upstream } from './upstream.ts';

export type Load = {
  /** CPU of the target's process, per request. */
  cpu_ms: number;
  /** Of it, that of the first thread. */
  firstThread_ms: number;
  perSecond: number;
  latencies_ms: number[];
};

/** CPU use of other processes while a target was measured. `share`: parts of a core. */
export const use = {
  upstream: { share_max: 0, cpu_ms: 0 },
  client: { share_max: 0, cpu_ms: 0 },
  /** Programs that do not belong to the run. */
  others: { share: 0, cpu_ms: 0 },
  wall_ms: 0,
};

/** Work after a response belongs to its request: the wait for that work. */
const AFTERWARDS_MS = 30;

export async function load(target: Target, upstream: Upstream, requests: HttpRequest[], atOnce: number, isGood: (answer: Answer) => boolean): Promise<Load> {
  // For this load alone: workerd closes connections that are idle for some seconds, possibly when they are used again.
  const connections = new Agent({ keepAlive: true });
  const latencies_ms: number[] = [];
  let next = 0;
  const one = async () => {
    for (let request = requests[next++]; request !== undefined; request = requests[next++]) {
      const answer = await send(target.url, request, connections);
      if (!isGood(answer)) throw new Error(`${target.name} answers ${request.method} ${request.path} with ${answer.status}: ${answer.body.slice(-300)}`);
      latencies_ms.push(answer.ms);
    }
  };
  const before = await spent(target, upstream);
  await Promise.all(Array.from({ length: atOnce }, one));
  const wall_ms = monotonicMs() - before.at_ms;
  connections.destroy();
  await pause(AFTERWARDS_MS);
  const after = await spent(target, upstream);
  count(before, after);
  return {
    cpu_ms: (after.target_ms - before.target_ms) / requests.length,
    firstThread_ms: (after.firstThread_ms - before.firstThread_ms) / requests.length,
    perSecond: (requests.length / wall_ms) * 1000,
    latencies_ms,
  };
}

type Spent = { at_ms: number; target_ms: number; firstThread_ms: number; upstream_ms: number; client_ms: number; machine_ms: number };

async function spent(target: Target, upstream: Upstream): Promise<Spent> {
  const readings = [cpuMs(target.pid), firstThreadCpuMs(target.pid), cpuMs(upstream.pid), machineCpuMs()] as const;
  const [target_ms, firstThread_ms, upstream_ms, machine_ms] = await Promise.all(readings);
  const { user, system } = process.cpuUsage();
  return { at_ms: monotonicMs(), target_ms, firstThread_ms, upstream_ms, client_ms: (user + system) / 1000, machine_ms };
}

function count(before: Spent, after: Spent): void {
  const between = (key: keyof Spent) => after[key] - before[key];
  use.wall_ms += between('at_ms');
  for (const who of ['upstream', 'client'] as const) {
    use[who].cpu_ms += between(`${who}_ms`);
    use[who].share_max = Math.max(use[who].share_max, between(`${who}_ms`) / between('at_ms'));
  }
  use.others.cpu_ms += between('machine_ms') - between('target_ms') - between('upstream_ms') - between('client_ms');
  use.others.share = use.others.cpu_ms / use.wall_ms;
}

/** CPU time and resident memory of a process, from /proc. */
import { readdir, readFile } from 'node:fs/promises';

/** Nanoseconds of each thread at its last reading: Deno ends threads that are idle for 10 s. */
const seen = new Map<number, Map<string, number>>();

/**
 * Milliseconds of CPU that the threads of a process have used, to the nanosecond. Threads that have ended count with their last
 * reading.
 */
export async function cpuMs(pid: number): Promise<number> {
  const threads = seen.get(pid) ?? new Map<string, number>();
  seen.set(pid, threads);
  const read = async (thread: string) => {
    const used_ns = await threadNs(pid, thread).catch(() => undefined); // ended meanwhile
    if (used_ns !== undefined) threads.set(thread, used_ns);
  };
  await Promise.all((await readdir(`/proc/${pid}/task`)).map(read));
  return [...threads.values()].reduce((sum, ns) => sum + ns, 0) / 1e6;
}

/** Forgets the threads of a process that has ended: its number can be another's later. */
export const forgetCpu = (pid: number): void => void seen.delete(pid);

/** Milliseconds of CPU of a process's first thread: that of the isolate in Deno. */
export const firstThreadCpuMs = async (pid: number): Promise<number> => (await threadNs(pid, String(pid))) / 1e6;

async function threadNs(pid: number, thread: string): Promise<number> {
  const [onCpu_ns] = (await readFile(`/proc/${pid}/task/${thread}/schedstat`, 'utf8')).split(' ');
  return Number(onCpu_ns);
}

/** Milliseconds of CPU that all programs of this machine have used, to a hundredth of a second. */
export async function machineCpuMs(): Promise<number> {
  const [line = ''] = (await readFile('/proc/stat', 'utf8')).split('\n');
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = line.split(/ +/).slice(1).map(Number);
  return (user + nice + system + irq + softirq) * 10;
}

/** Resident memory in megabytes. */
export async function residentMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return (Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024) / 1e6;
}

/** Finds the process with this variable in its environment, when another program started it. */
export async function pidWith(variable: string, value: string): Promise<number> {
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const environment = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => ''); // ended, or not ours
    if (environment.split('\0').includes(`${variable}=${value}`)) return Number(pid);
  }
  throw new Error(`no process has ${variable}=${value}`);
}

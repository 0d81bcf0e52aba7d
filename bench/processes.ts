/** CPU time and resident memory of a process, from /proc. */
import { readdir, readFile } from 'node:fs/promises';

/**
 * Milliseconds of CPU that the threads of a process have used, to the nanosecond. Threads that have ended are not in it;
 * those of workerd and of the upstream live as long as their process.
 */
export async function cpuMs(pid: number): Promise<number> {
  const threads = await readdir(`/proc/${pid}/task`);
  const spent_ns = threads.map(async (thread) => {
    const [onCpu_ns] = (await readFile(`/proc/${pid}/task/${thread}/schedstat`, 'utf8')).split(' ');
    return Number(onCpu_ns);
  });
  return (await Promise.all(spent_ns)).reduce((sum, ns) => sum + ns, 0) / 1e6;
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

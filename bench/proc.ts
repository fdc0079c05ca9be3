/**
 * What the kernel says of processes and sockets, read from /proc: time used, memory held, ports listened on.
 *
 * CPU time is the whole system's first of all. Loopback and veth deliver a segment in the sender's context, as
 * far as the receiver's socket, so a relay's own time lacks work done on its behalf and contains work done for
 * others; the sum is what a host pays. The root cgroup counts it in ns; /proc/stat counts ticks, a last resort.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Child, Place } from './processes.ts';

/** Where the time of everything that ran is counted, and how many of its units are a second. */
const systemClocks: readonly (readonly [path: string, pattern: RegExp, perSecond: number])[] = [
  ['/sys/fs/cgroup/cpuacct/cpuacct.usage', /^(\d+)/, 1e9],
  ['/sys/fs/cgroup/cpu.stat', /^usage_usec (\d+)/m, 1e6],
];

/** Seconds of CPU time used by everything since some moment. */
export function systemCpu(): number {
  for (const [path, pattern, perSecond] of systemClocks) {
    const [, value] = pattern.exec(readOr(path, '')) ?? [];
    if (value !== undefined) return Number(value) / perSecond;
  }
  const { user, nice, system, irq, softirq } = systemTicks();
  return (user + nice + system + irq + softirq) / ticksPerSecond;
}

/** USER_HZ, which the kernel fixes at 100 for everything it shows. */
const ticksPerSecond = 100;

/** Ticks of all processors by kind, proc(5). `steal` is what the hypervisor gave to others. */
export function systemTicks() {
  const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] =
    readFileSync('/proc/stat', 'utf8').split('\n', 1).join('').trim().split(/\s+/).slice(1).map(Number);
  return {
    user,
    nice,
    system,
    irq,
    softirq,
    steal,
    all: user + nice + system + idle + iowait + irq + softirq + steal,
  };
}

/** The processes that are in the group of one of these leaders. */
export function membersOf(leaders: readonly Child[]): readonly number[] {
  const groups = new Set(leaders.map(({ pid }) => pid));
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => groups.has(statOf(pid)[2] ?? Number.NaN));
}

/** Seconds of CPU time of the groups, children that have ended included. */
export function groupCpu(leaders: readonly Child[]): number {
  const ticks = membersOf(leaders).map((pid) => {
    const fields = statOf(pid);
    // utime, stime, cutime, cstime
    return [11, 12, 13, 14].reduce((sum, i) => sum + (fields[i] ?? 0), 0);
  });
  return sum(ticks) / ticksPerSecond;
}

export interface Resident {
  /** Bytes; pages shared with others count in part. */
  readonly pss: number;
  /** Bytes; pages shared with others count in full. */
  readonly rss: number;
}

/** Memory of the groups. */
export function groupMemory(leaders: readonly Child[]): Resident {
  const texts = membersOf(leaders).map((pid) => readOr(`/proc/${pid}/smaps_rollup`, ''));
  const all = (name: string) =>
    sum(texts.map((text) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) * 1024));
  return { pss: all('Pss'), rss: all('Rss') };
}

/** Bytes that the kernel holds in its object caches, where sockets, files and pipes live. */
export function kernelObjects(): number {
  return Number(/^Slab:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0) * 1024;
}

export interface Listening {
  readonly protocol: 'tcp' | 'udp';
  readonly address: string;
  readonly port: number;
}

/** Resolves when all of these are bound, by processes of one network; fails if one of those ends first. */
export async function untilListening(
  children: readonly Child[],
  wanted: readonly Listening[],
  seconds = 30,
): Promise<void> {
  const deadline = performance.now() + seconds * 1000;
  const [first] = children;
  for (;;) {
    const missing = missingOf(first?.pid ?? 0, wanted);
    if (missing.length === 0) return;
    const dead = children.find(({ alive }) => !alive);
    if (dead !== undefined) throw new Error(dead.lastWords);
    if (performance.now() > deadline) {
      throw new Error(`${first?.command} does not listen on ${missing[0]?.address} port ${missing[0]?.port}`);
    }
    // Short beside any start, long beside reading the tables.
    await sleep(2);
  }
}

/** Fails if somebody else has one of these already; only the machine's own network can have such. */
export function refuseBusy({ netns }: Place, wanted: readonly Listening[]): void {
  if (netns !== undefined) return;
  const free = new Set(missingOf(process.pid, wanted));
  const busy = wanted.find((each) => !free.has(each));
  if (busy !== undefined) throw new Error(`port ${busy.port} of ${busy.address} is in use`);
}

/** Asked of the kernel and not by connecting, which would be work for the subject. */
function missingOf(pid: number, wanted: readonly Listening[]): readonly Listening[] {
  const bound = new Map<string, ReadonlySet<number>>();
  return wanted.filter(({ protocol, address, port }) => {
    const table = `${protocol}${address.includes(':') ? '6' : ''}`;
    const ports = bound.get(table) ?? boundPorts(`/proc/${pid}/net/${table}`);
    bound.set(table, ports);
    return !ports.has(port);
  });
}

/** Ports in state LISTEN (TCP, 0A) or bound without a peer (UDP, 07). */
function boundPorts(path: string): ReadonlySet<number> {
  const found = readOr(path, '').matchAll(/^ *\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:0000 (?:0A|07) /gm);
  return new Set([...found].map(([, port = '']) => Number.parseInt(port, 16)));
}

/** Numbers of /proc/<pid>/stat from the third field (state) on, so that the group is the third of them. */
function statOf(pid: number): readonly number[] {
  const text = readOr(`/proc/${pid}/stat`, '');
  // The name in parentheses may contain anything.
  return text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
}

function readOr(path: string, otherwise: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return otherwise;
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

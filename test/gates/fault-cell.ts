/**
 * One cell of the sweep: one system call of a running dualport fails once, the k-th time that it is made, with an errno
 * that may mean nothing there; and what becomes of dualport. By strace, which puts the errno in place of the call.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Child } from '../../bench/processes.ts';
import type { Arena } from './arena.ts';
import type { EngineName } from './options.ts';
import type { Relay } from './relay.ts';
import { spokenLine } from './spoken.ts';
import type { Clean, Mixed } from './traffic.ts';

export const errors = [
  'EAGAIN',
  'EINTR',
  'ENOMEM',
  'ENOBUFS',
  'EMFILE',
  'EPIPE',
  'ECONNRESET',
  'EINVAL',
] as const;
export const turns = [1, 2, 5, 20] as const;

export interface Cell {
  readonly call: string;
  readonly error: (typeof errors)[number];
  /** Which of the calls fails, from when the traffic begins. */
  readonly turn: (typeof turns)[number];
}

export type Fate =
  /** It serves on. `cut` are the flows that were ended by it. */
  | { readonly kind: 'lived'; readonly cut: number }
  /** It has ended with a status other than 0, and said why. */
  | { readonly kind: 'exited'; readonly said: string }
  /** It has been ended by libuv, which says nothing. */
  | { readonly kind: 'aborted' }
  /** The call was not made so often. */
  | { readonly kind: 'not reached' }
  | { readonly kind: 'broken'; readonly how: string };

/**
 * Where libuv calls abort() without a word, for its own poll and its own eventfd: failures that no kernel makes of
 * descriptors that are open, but for ENOMEM in epoll_ctl, which the limits of flows stay clear of.
 */
const abortsInLibuv = ['epoll_ctl', 'epoll_pwait', 'epoll_wait', 'read', 'write'];

/**
 * Calls on a socket behind whose failure Node closes it before it tells anybody, so that the portable engine cannot reset
 * it: with the errnos that a kernel gives there the connection is gone by itself, with the others a part looks whole.
 */
const closesInNode = ['read', 'write', 'writev'];

/**
 * libuv keeps a descriptor for this: it accepts all who wait by it, and closes them. The limits of flows stay clear of it.
 */
const isAcceptedToClose = ({ call, error }: Cell) => call === 'accept4' && error === 'EMFILE';

/** By which libc and V8 end a process once they have said why. */
const fatal: readonly string[] = ['SIGABRT', 'SIGTRAP', 'SIGILL'];

/** What a process that has nothing to do may use of a processor; one that spins uses all it can get. */
const mostIdleCpu = 0.1;
const watchedMs = 300;

export class TrafficProgram {
  readonly #child: Child;
  #lines = 1;

  constructor(child: Child) {
    this.#child = child;
  }

  ready(): Promise<string> {
    return spokenLine(this.#child, 1, 20_000);
  }

  mixed(): Promise<Mixed> {
    return this.#tell('mixed');
  }

  clean(): Promise<Clean> {
    return this.#tell('clean');
  }

  async #tell<T>(command: string): Promise<T> {
    this.#child.process.stdin?.write(`${command}\n`);
    return JSON.parse(await spokenLine(this.#child, ++this.#lines, 60_000));
  }
}

/** @param relay is ended afterwards, whatever it did */
export async function playCell(
  arena: Arena,
  relay: Relay,
  traffic: TrafficProgram,
  cell: Cell,
): Promise<Fate> {
  const log = join(arena.folder, 'strace');
  try {
    const strace = await injecting(arena, relay, cell, log);
    const came = await traffic.mixed();
    await detached(strace, relay);
    const injected = readFileSync(log, 'utf8').includes('(INJECTED)');
    const fate = await fateOf(arena.engine, cell, relay, traffic, came);
    return injected || fate.kind === 'broken' ? fate : { kind: 'not reached' };
  } finally {
    await relay.child.end();
  }
}

async function injecting(
  arena: Arena,
  relay: Relay,
  { call, error, turn }: Cell,
  log: string,
): Promise<Child> {
  const how = ['-e', `trace=${call}`, '-e', `inject=${call}:error=${error}:when=${turn}`];
  const strace = arena.start(['strace', '-f', '-qq', '-o', log, '-p', `${relay.pid}`, ...how]);
  const deadline = performance.now() + 10_000;
  while (!isTraced(relay.pid)) {
    if (!strace.alive || performance.now() > deadline) throw new Error(`strace: ${strace.lastWords}`);
    await sleep(5);
  }
  return strace;
}

/**
 * It is killed where it does not let go: of a process that dies meanwhile it may wait for a thread for ever (6.1 did). A
 * dead one is not told of before.
 */
async function detached(strace: Child, relay: Relay): Promise<void> {
  await strace.end();
  if (isZombie(relay.pid)) await relay.child.ended;
}

async function fateOf(
  engine: EngineName,
  cell: Cell,
  relay: Relay,
  traffic: TrafficProgram,
  came: Mixed,
): Promise<Fate> {
  if (came.corrupt > 0) return broken(`${came.corrupt} clients got other bytes than were sent`);
  // The kernel ends the connections of a process that dies as if it had said all.
  if (!relay.child.alive) return fateOfDead(cell, relay);
  const isClosed = engine === 'portable' && (closesInNode.includes(cell.call) || isAcceptedToClose(cell));
  if (came.truncated > 0 && !isClosed) return broken(`${came.truncated} clients take a part for the whole`);
  if (came.stalled > 0) return broken(`${came.stalled} connections stand still`);
  const { failure } = await traffic.clean();
  if (!relay.child.alive) return fateOfDead(cell, relay);
  if (failure !== '') return broken(`it lives, and ${failure}`);
  const used = await idleCpu(relay.pid);
  if (used > mostIdleCpu)
    return broken(`it spins, with ${Math.round(used * 100)} % of a processor and nothing to do`);
  return { kind: 'lived', cut: came.cut };
}

function fateOfDead({ call }: Cell, relay: Relay): Fate {
  const { exitCode, signalCode } = relay.child.process;
  const said = relay.child.stderr.trim();
  if (exitCode === 0) return broken('it ends as if it had been told to');
  if (signalCode !== null && !fatal.includes(signalCode)) return broken(`it is ended by ${signalCode}`);
  if (said === '' && signalCode === 'SIGABRT' && abortsInLibuv.includes(call)) return { kind: 'aborted' };
  if (said === '') return broken(`it ends without a word (${signalCode ?? `exit ${exitCode}`})`);
  return { kind: 'exited', said: said.split('\n').find((line) => /\w/.test(line)) ?? said };
}

function broken(how: string): Fate {
  return { kind: 'broken', how };
}

function isZombie(pid: number): boolean {
  try {
    return /^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    // Its end has been taken note of.
    return false;
  }
}

function isTraced(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).every(
      (thread) => !/^TracerPid:\t0$/m.test(readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8')),
    );
  } catch {
    // The very first call has ended it.
    return true;
  }
}

/** Of one processor, over a while. */
async function idleCpu(pid: number): Promise<number> {
  await sleep(100);
  const before = ranNs(pid);
  const start = performance.now();
  await sleep(watchedMs);
  return (ranNs(pid) - before) / 1e6 / (performance.now() - start);
}

/** Time on a processor of all of its threads. */
function ranNs(pid: number): number {
  return readdirSync(`/proc/${pid}/task`).reduce((total, thread) => {
    const [ran = '0'] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ');
    return total + Number(ran);
  }, 0);
}

/**
 * The processes of a run. Each is started in a place (a network namespace, or the machine itself) as the
 * leader of its own process group, for three reasons: Ctrl-C at a terminal must reach the harness alone, which
 * then ends everything in order; a subject's helpers (nginx's workers, socat's children) belong to its group
 * and are counted and ended with it; and nothing is ever ended by name.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { openSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Where a process lives: a path below /run/netns, or nothing for the machine's own network. */
export interface Place {
  readonly netns?: string;
}

export interface StartOptions {
  readonly env?: NodeJS.ProcessEnv;
  /** docker-proxy reports on descriptor 3; /dev/null is there for it. */
  readonly third?: boolean;
  readonly stdin?: 'pipe';
}

/** How long a process may take to end by itself before it is killed, in ms. */
const patience = 1500;

/** What of a program's output may be kept, in characters; its last words tell why it failed. */
const keptOutput = 4_000_000;

export class Child {
  readonly command: string;
  readonly process: ChildProcess;
  stdout = '';
  stderr = '';
  readonly ended: Promise<void>;

  constructor(command: readonly string[], words: readonly string[], options: StartOptions) {
    // Without its folder, because messages end up in files that are shown to others.
    this.command = basename(command[0] ?? '');
    const [program = '', ...args] = words;
    this.process = spawn(program, args, {
      detached: true,
      stdio: [options.stdin ?? 'ignore', 'pipe', 'pipe', options.third === true ? devNull() : null],
      ...(options.env === undefined ? {} : { env: { ...process.env, ...options.env } }),
    });
    this.process.stdout?.on('data', (chunk) => {
      this.stdout = (this.stdout + chunk).slice(-keptOutput);
    });
    this.process.stderr?.on('data', (chunk) => {
      this.stderr = (this.stderr + chunk).slice(-keptOutput);
    });
    this.process.on('error', (error) => {
      this.stderr += error.message;
    });
    // A program that is not there gives an error and no exit, but always a close.
    this.ended = once(this.process, 'close').then(() => {});
  }

  get pid(): number {
    return this.process.pid ?? 0;
  }

  get alive(): boolean {
    return this.pid !== 0 && this.process.exitCode === null && this.process.signalCode === null;
  }

  /** What it said last and how it ended, for a message. */
  get lastWords(): string {
    const { exitCode, signalCode } = this.process;
    const said = (this.stderr.trim() || this.stdout.trim()).split('\n').slice(-3).join(' | ').slice(-400);
    return `${this.command} ${signalCode ?? `exit ${exitCode}`}${said === '' ? '' : `: ${said}`}`;
  }

  /** Ends the whole group, gently first. */
  async end(): Promise<void> {
    if (this.pid === 0) return;
    signalGroup(this.pid, 'SIGTERM');
    const stop = new AbortController();
    await Promise.race([this.ended, sleep(patience, undefined, { signal: stop.signal }).catch(() => {})]);
    stop.abort();
    // Also after a leader that ended in time: its children may not have.
    signalGroup(this.pid, 'SIGKILL');
    await this.ended;
  }
}

let devNullFd: number | undefined;

/** Node opens /dev/null by itself for the first three descriptors only. */
function devNull(): number {
  devNullFd ??= openSync('/dev/null', 'r+');
  return devNullFd;
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // ESRCH: nobody is left.
  }
}

/** The open file limit that everything measured is given: a high one where this process may raise its own. */
export function openFileLimit(): number {
  const wanted = Math.min(1_048_576, Number(readFileSync('/proc/sys/fs/nr_open', 'utf8')));
  if (spawnSync('prlimit', [`--nofile=${wanted}:${wanted}`, 'true']).status === 0) return wanted;
  const [, hard = '1024'] =
    /^Max open files +\S+ +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
  return Math.min(wanted, Number(hard));
}

/** Starts processes, and knows all that have not ended. */
export class Processes {
  readonly #running = new Set<Child>();
  readonly openFileLimit = openFileLimit();
  #closed = false;

  start(place: Place, command: readonly string[], options: StartOptions = {}): Child {
    if (this.#closed) throw new Error('the run is ending');
    const child = new Child(command, this.#words(place, command), options);
    this.#running.add(child);
    child.process.once('close', () => this.#running.delete(child));
    return child;
  }

  /** Runs a command to its end, at most `seconds`; a failure is an error with its last words. */
  async run(place: Place, command: readonly string[], seconds = 10): Promise<string> {
    const child = this.start(place, command);
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.end().catch(() => {});
    }, seconds * 1000);
    await child.ended;
    clearTimeout(timer);
    if (late) throw new Error(`${child.command} did not end within ${seconds} s`);
    if (child.process.exitCode !== 0) throw new Error(child.lastWords);
    return child.stdout;
  }

  /** Ends whatever runs; nothing can be started afterwards. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#running].map((child) => child.end()));
  }

  // prlimit and nsenter replace themselves by the command, so the pid is the command's own.
  #words({ netns }: Place, command: readonly string[]): readonly string[] {
    const enter = netns === undefined ? [] : ['nsenter', `--net=${netns}`];
    return ['prlimit', `--nofile=${this.openFileLimit}:${this.openFileLimit}`, ...enter, ...command];
  }
}

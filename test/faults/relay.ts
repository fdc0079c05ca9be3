/** A subject that runs: its processes, what they hold, what they say. */
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import http from 'node:http';
import { promisify } from 'node:util';
import { until } from '../engine/harness.ts';
import { listening, type Stage } from '../support/dualport.ts';
import type { LogLine, Running } from '../support/process.ts';
import { isRunning, withDescendants } from '../support/process-tree.ts';
import { listenersOf, type SignalMeaning, type Subject, type Wanted, withFiles } from './subject.ts';
import { adminSocket } from './subjects/dualport.ts';

export interface Descriptors {
  readonly sockets: number;
  readonly pipes: number;
  readonly others: number;
}

/** One TCP socket of a relay, as ss shows it. */
export interface Connection {
  readonly state: string;
  readonly local: string;
  readonly peer: string;
  /** What the kernel holds for it, both directions. */
  readonly bytes: number;
}

export class Relay {
  readonly subject: Subject;
  readonly folder: string;
  wanted: Wanted;
  #programs: readonly Running[] = [];
  readonly #stage: Stage;

  constructor(stage: Stage, subject: Subject, wanted: Wanted) {
    this.#stage = stage;
    this.subject = subject;
    this.wanted = wanted;
    this.folder = stage.directory();
  }

  /** Resolves when every port is served; what is wanted may be something else than before. */
  async start(wanted: Wanted = this.wanted): Promise<void> {
    this.wanted = wanted;
    const place = withFiles(this.wanted);
    const commands = this.subject.commands(this.folder, this.wanted);
    this.#programs = commands.map(([command = '', ...args]) => this.#stage.background(place, command, args));
    for (const [i, { publication, host }] of listenersOf(this.wanted).entries()) {
      const { protocol, port } = publication;
      const program = this.#programs[this.#programs.length > 1 ? i : 0] as Running;
      await listening(program, host.includes(':') ? `${protocol}6` : protocol, port);
    }
    const ready = this.#programs.length * (1 + this.subject.workers);
    await until(() => this.processes.length >= ready, `${ready} processes: ${this.said}`);
    if (this.isDualport) await this.#programs[0]?.says('ready');
  }

  get isDualport(): boolean {
    return this.subject.name === 'linux' || this.subject.name === 'portable';
  }

  /** Where its state is to be seen. */
  get hasAdminSocket(): boolean {
    return typeof this.wanted.admin !== 'number';
  }

  /** Those that were started; workers come and go. */
  get pids(): readonly number[] {
    return this.#programs.flatMap(({ child }) => child.pid ?? []);
  }

  get pid(): number {
    return this.pids[0] ?? 0;
  }

  get processes(): readonly number[] {
    return this.pids.flatMap(withDescendants);
  }

  get program(): Running {
    return this.#programs[0] as Running;
  }

  get ended(): boolean {
    return !this.pids.every(isRunning);
  }

  get said(): string {
    return this.#programs.map(({ stdout, stderr }) => stdout + stderr).join('');
  }

  get complaints(): string {
    return this.#programs.map(({ stderr }) => stderr).join('');
  }

  /** Of dualport. */
  get lines(): readonly LogLine[] {
    return this.program.lines;
  }

  signal(name: NodeJS.Signals): void {
    for (const program of this.#programs) program.signal(name);
  }

  /** @returns false when the subject has no such signal */
  tell(meaning: SignalMeaning): boolean {
    const signal = this.subject.signals[meaning];
    if (signal !== undefined) this.signal(signal);
    return signal !== undefined;
  }

  /** Writes another configuration where this one was; nobody is told. */
  configure(wanted: Wanted): void {
    this.subject.commands(this.folder, wanted);
  }

  async exits(): Promise<readonly (number | null)[]> {
    return (await Promise.all(this.#programs.map(({ exit }) => exit))).map(({ code }) => code);
  }

  /** Workers, too, which would keep their parent's output open. */
  kill(): void {
    for (const pid of this.processes) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended meanwhile.
      }
    }
  }

  descriptors(): Descriptors {
    const targets = this.processes.flatMap(openFiles);
    const sockets = targets.filter((target) => target.startsWith('socket:')).length;
    const pipes = targets.filter((target) => target.startsWith('pipe:')).length;
    return { sockets, pipes, others: targets.length - sockets - pipes };
  }

  residentBytes(): number {
    return this.processes.reduce((total, pid) => total + residentBytes(pid), 0);
  }

  async connections(): Promise<readonly Connection[]> {
    const { stdout } = await run('ss', ['-Htanmp'], { maxBuffer: 64 * 1024 * 1024 });
    const own = this.processes.map((pid) => `pid=${pid},`);
    return stdout
      .replaceAll('\n\t', ' ')
      .split('\n')
      .filter((line) => own.some((pid) => line.includes(pid)))
      .map(connectionOf);
  }

  /** Its listening TCP sockets, as `address:port` without brackets. */
  async listening(): Promise<readonly string[]> {
    const { stdout } = await run('ss', ['-Hltnp']);
    const own = this.processes.map((pid) => `pid=${pid},`);
    const lines = stdout.split('\n').filter((line) => own.some((pid) => line.includes(pid)));
    return lines.map((line) => (line.trim().split(/\s+/)[3] ?? '').replace(/[[\]]/g, ''));
  }

  /** The processes' CPU time, in milliseconds. */
  cpuMs(): number {
    return this.processes.reduce((total, pid) => total + cpuMs(pid), 0);
  }

  /** A sample of dualport's metrics, summed over its labels that contain all of these texts. */
  async metric(name: string, ...labels: readonly string[]): Promise<number> {
    const page = await this.page('/metrics');
    return page
      .split('\n')
      .filter((line) => line.startsWith(name) && labels.every((label) => line.includes(label)))
      .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' '))), 0);
  }

  async untilMetric(least: number, name: string, ...labels: readonly string[]): Promise<void> {
    let last = 0;
    for (let i = 0; i < 100 && last < least; i++) {
      last = await this.metric(name, ...labels);
      if (last < least) await new Promise((resolve) => setTimeout(resolve, 20));
    }
    if (last < least) throw new Error(`${name}{${labels}} is ${last}, expected ${least} at least`);
  }

  page(path: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const options = { socketPath: adminSocket(this.folder), path, agent: false };
      const request = http.get(options, (response) => {
        let body = '';
        response.on('data', (chunk) => (body += chunk));
        response.on('end', () => resolve(body));
      });
      request.on('error', reject);
    });
  }

  /** From now on a system call fails in these processes, as strace says it: `error=EMFILE:when=1..5`. */
  async inject(calls: string, how: string): Promise<Injection> {
    const watched = this.processes.flatMap((pid) => ['-p', String(pid)]);
    const strace = this.#stage.background({ prefix: [] }, 'strace', [
      ...['-f', '-qq', ...watched, '-e', `trace=${calls}`, '-e', `inject=${calls}:${how}`],
    ]);
    // With -qq it does not say that it has attached; the kernel does.
    await until(() => this.processes.every(isTraced), `strace: ${strace.stderr}`);
    return {
      failed: () => strace.stderr.split('(INJECTED)').length - 1,
      end: async () => {
        strace.signal('SIGINT');
        await strace.exit;
      },
    };
  }
}

export interface Injection {
  /** How many calls it has made fail. */
  failed(): number;
  end(): Promise<void>;
}

const run = promisify(execFile);

function openFiles(pid: number): readonly string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
      } catch {
        return [];
      }
    });
  } catch {
    return [];
  }
}

function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8');
  } catch {
    return '';
  }
}

function residentBytes(pid: number): number {
  const [, kibibytes] = /^VmRSS:\s+(\d+)/m.exec(statusOf(pid)) ?? [];
  return Number(kibibytes ?? 0) * 1024;
}

function isTraced(pid: number): boolean {
  return !/^TracerPid:\t0$/m.test(statusOf(pid));
}

const tickMs = 10;

function cpuMs(pid: number): number {
  try {
    // The command in parentheses may have spaces.
    const [user, system] =
      readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ').slice(11, 13) ?? [];
    return (Number(user) + Number(system)) * tickMs;
  } catch {
    return 0;
  }
}

/** State, two queues, both ends, the processes, and memory: `skmem:(r0,rb131072,t0,tb87040,f0,w0,o0,bl0,d0)`. */
function connectionOf(line: string): Connection {
  const [state = '', , , local = '', peer = ''] = line.trim().split(/\s+/);
  const [, received = 0, queued = 0] = /skmem:\(r(\d+),.*?,w(\d+),/.exec(line) ?? [];
  return { state, local, peer, bytes: Number(received) + Number(queued) };
}

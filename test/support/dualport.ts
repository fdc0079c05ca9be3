/**
 * What one test sets up outside this process: dualport, daemons, clients, directories. Everything is given
 * back when the test ends, in reverse order, and also when this process is told to end before.
 */
import { mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '../engine/harness.ts';
import { type Exit, type LogLine, main, Running } from './process.ts';

/** Where a program runs: words in front of its command. */
export interface Place {
  readonly prefix: readonly string[];
}

export const here: Place = { prefix: [] };

/** A table of /proc/PID/net; a V6ONLY listener stands in the one that ends in 6. */
export type SocketTable = 'tcp' | 'tcp6' | 'udp' | 'udp6';

/** Undone when the process ends in the middle of a test: synchronous, latest first. */
const leftovers = new Set<() => void>();
process.on('exit', () => {
  for (const undo of [...leftovers].reverse()) {
    try {
      undo();
    } catch (error) {
      console.error(error);
    }
  }
});
// Without a handler these end the process and its 'exit' never comes.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1));

export class Stage {
  readonly #closers: (() => unknown)[] = [];

  /** @param owner a test's context, or node:test itself in a suite */
  constructor(owner: { after(close: () => Promise<void>): void }) {
    owner.after(() => this.close());
  }

  /** Something to undo at the end, whichever end it is. */
  undo(undo: () => void): void {
    leftovers.add(undo);
    this.#closers.push(() => {
      leftovers.delete(undo);
      undo();
    });
  }

  directory(): string {
    const path = mkdtempSync(join(tmpdir(), 'dualport-test-'));
    this.undo(() => rmSync(path, { recursive: true, force: true }));
    return path;
  }

  /** A program that runs until the test ends; one that ends by itself fails the test. */
  start(place: Place, command: string, args: readonly string[]): Running {
    const program = this.background(place, command, args);
    this.#closers.push(() => {
      if (!hasEnded(program)) return;
      throw new Error(`${command} ended by itself: ${program.stdout}${program.stderr}`);
    });
    return program;
  }

  /** A program that may end before the test does. */
  background(place: Place, command: string, args: readonly string[]): Running {
    const program = new Running(args, { command: [...place.prefix, command] });
    const kill = () => program.signal('SIGKILL');
    leftovers.add(kill);
    this.#closers.push(async () => {
      leftovers.delete(kill);
      kill();
      await program.exit;
    });
    return program;
  }

  /** A program that does its work and ends. */
  async run(place: Place, command: string, args: readonly string[]): Promise<Exit> {
    const program = new Running(args, { command: [...place.prefix, command] });
    const kill = () => program.signal('SIGKILL');
    leftovers.add(kill);
    const timer = setTimeout(kill, runLimitMs);
    const exit = await program.exit;
    clearTimeout(timer);
    leftovers.delete(kill);
    return exit;
  }

  /** dualport, once it is ready. */
  async dualport(place: Place, args: readonly string[]): Promise<Dualport> {
    const running = this.start(place, process.execPath, [main, ...args, '--access-log']);
    await running.says('ready');
    return new Dualport(running);
  }

  /** One that refuses to start. */
  refusedDualport(place: Place, args: readonly string[]): Promise<Exit> {
    return this.run(place, process.execPath, [main, ...args]);
  }

  async close(): Promise<void> {
    const failures: unknown[] = [];
    for (const close of this.#closers.splice(0).reverse()) {
      try {
        await close();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw new AggregateError(failures, failures.map(String).join('\n'));
  }
}

const runLimitMs = 50_000;

function hasEnded({ child }: Running): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/** A running dualport and what it logs. */
export class Dualport {
  readonly running: Running;

  constructor(running: Running) {
    this.running = running;
  }

  /** Lines of an ended flow, relayed or refused. */
  get flows(): readonly LogLine[] {
    return this.running.lines.filter((line) => 'dualport.close_reason' in line);
  }

  /** The first of them, once it is there. */
  async flow(which: (line: LogLine) => boolean = () => true): Promise<LogLine> {
    await until(() => this.flows.some(which), `a flow in the log: ${this.running.stdout}`);
    return this.flows.find(which) as LogLine;
  }

  /** Lines an operator would be woken by. */
  get complaints(): readonly LogLine[] {
    return this.running.lines.filter(({ level }) => level === 'warn' || level === 'error');
  }
}

/**
 * Waits until a program listens. Read from /proc, because a connection made to find out would itself show in
 * what is tested, and would have to be made from the program's own network namespace.
 */
export async function listening(program: Running, table: SocketTable, port: number): Promise<void> {
  const { pid } = program.child;
  await until(
    () => pid !== undefined && listens(pid, table, port),
    `${table} port ${port}: ${program.stdout}${program.stderr}`,
  );
}

/** 0A is LISTEN; 07 is what an unconnected UDP socket shows. */
function listens(pid: number, table: SocketTable, port: number): boolean {
  const state = table.startsWith('tcp') ? '0A' : '07';
  const local = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  return socketLines(pid, table).some((line) => {
    const [, at, , is] = line.trim().split(/\s+/);
    return at?.endsWith(local) && is === state;
  });
}

function socketLines(pid: number, table: SocketTable): readonly string[] {
  try {
    // `ip netns exec` is still on its way in: what it sees are the sockets of the outside.
    if (readlinkSync(`/proc/${pid}/exe`).endsWith('/ip')) return [];
    return readFileSync(`/proc/${pid}/net/${table}`, 'utf8').split('\n');
  } catch {
    return [];
  }
}

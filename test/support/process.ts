/**
 * The built program as its users run it: a child process with flags, its log lines, its exit status.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, symlinkSync } from 'node:fs';
import net from 'node:net';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from '../engine/harness.ts';

export const main: string = fileURLToPath(new URL('../../src/main.js', import.meta.url));

export interface Exit {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export type LogLine = Readonly<Record<string, unknown>>;

/** A dualport that runs until it is told to end. */
export class Running {
  readonly child: ChildProcess;
  stdout = '';
  stderr = '';
  readonly exit: Promise<Exit>;

  constructor(
    args: readonly string[],
    options: { env?: NodeJS.ProcessEnv; command?: readonly string[] } = {},
  ) {
    const [command = process.execPath, ...before] = options.command ?? [process.execPath, main];
    const env = { PATH: process.env['PATH'], ...options.env };
    this.child = spawn(command, [...before, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.child.stdout?.on('data', (chunk) => (this.stdout += chunk));
    this.child.stderr?.on('data', (chunk) => (this.stderr += chunk));
    this.exit = once(this.child, 'close').then(([code]) => ({
      code,
      stdout: this.stdout,
      stderr: this.stderr,
    }));
  }

  get lines(): readonly LogLine[] {
    const whole = this.stdout.slice(0, this.stdout.lastIndexOf('\n') + 1);
    return whole
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line));
  }

  /** Log lines with this message. */
  said(message: string): readonly LogLine[] {
    return this.lines.filter(({ msg }) => msg === message);
  }

  async says(message: string, times = 1, limitMs?: number): Promise<LogLine> {
    const failed = () => this.child.exitCode !== null;
    await until(
      () => this.said(message).length >= times || failed(),
      `${message}: ${this.stdout}${this.stderr}`,
      limitMs,
    );
    const line = this.said(message)[times - 1];
    if (line === undefined) throw new Error(`it ended: ${this.stderr}`);
    return line;
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name);
  }

  /** Ends it, however far it got. */
  async end(): Promise<void> {
    if (this.child.exitCode === null) this.signal('SIGKILL');
    await this.exit;
  }
}

/** Runs a command line that ends by itself. */
export function runToEnd(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Exit> {
  return new Running(args, { env }).exit;
}

/** For PATH: a new folder with this Node, these programs and no others. */
export function toolsAlone(directory: string, tools: readonly string[]): string {
  const folder = mkdtempSync(join(directory, 'tools-'));
  symlinkSync(process.execPath, join(folder, 'node'));
  const path = (process.env['PATH'] ?? '').split(delimiter);
  for (const tool of tools) {
    const found = path.map((each) => join(each, tool)).find((each) => existsSync(each));
    if (found === undefined) throw new Error(`there is no ${tool}`);
    symlinkSync(found, join(folder, tool));
  }
  return folder;
}

const given = new Set<number>();

/** A port that is free on both families now, and that nobody in this process was given before. */
export async function freePort(): Promise<number> {
  const port = await chosenPort();
  if (given.has(port)) return freePort();
  given.add(port);
  return port;
}

async function chosenPort(): Promise<number> {
  const server = net.createServer().listen(0, '::');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** The first of several free ports in a row, from below those the kernel gives to clients. */
export async function freeRange(count: number): Promise<number> {
  const first = 10_000 + Math.floor(Math.random() * 20_000);
  const ports = Array.from({ length: count }, (_, i) => first + i);
  const free = await Promise.all(ports.map(isFree));
  return free.every(Boolean) ? first : freeRange(count);
}

async function isFree(port: number): Promise<boolean> {
  const server = net.createServer();
  const bound = await new Promise<boolean>((resolve) => {
    server.once('error', () => resolve(false)).listen(port, '::', () => resolve(true));
  });
  if (bound) await new Promise((resolve) => server.close(resolve));
  return bound;
}

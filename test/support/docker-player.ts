/**
 * A proxy between a dockerd that is played (docker-player.c) and the programs of a test: dualport's launcher with a
 * dualport behind it, or the stock program.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Protocol } from '../../src/flow/flow.ts';
import { type Endpoint, formatHost } from '../../src/net/address.ts';
import { until } from '../engine/harness.ts';
import { here, type Stage } from './dualport.ts';
import { main, type Running } from './process.ts';

const source = fileURLToPath(new URL('../../../test/support/docker-player.c', import.meta.url));
export const launcherPath: string = fileURLToPath(
  new URL('../../../native/build/docker-proxy', import.meta.url),
);
/** Debian's. */
export const stockPath = '/usr/sbin/docker-proxy';

/** The program in question, and what it needs around it. */
export interface Subject {
  readonly path: string;
  readonly env: NodeJS.ProcessEnv;
  readonly dualport: Running | undefined;
}

export function stockSubject(): Subject {
  return { path: stockPath, env: {}, dualport: undefined };
}

/** The launcher and a dualport for it, once that is ready. */
export async function launcherSubject(stage: Stage, args: readonly string[] = []): Promise<Subject> {
  const socket = join(stage.directory(), 'launchers.sock');
  const dualport = stage.start(here, process.execPath, [main, '--docker-proxy-socket', socket, ...args]);
  await dualport.says('ready');
  return { path: launcherPath, env: { DUALPORT_DOCKER_PROXY_SOCKET: socket }, dualport };
}

/** Built once a process. */
let player: string | undefined;

export function buildPlayer(stage: Stage): void {
  player = join(stage.directory(), 'docker-player');
  const { status, stderr } = spawnSync('gcc', ['-O1', '-Wall', '-Wextra', '-Werror', '-o', player, source]);
  if (status !== 0) throw new Error(String(stderr));
}

export interface Mapping {
  readonly protocol: Protocol;
  readonly host: string;
  readonly port: number;
  readonly container: Endpoint;
}

export function wordsOf({ protocol, host, port, container }: Mapping): readonly string[] {
  const to = ['-container-ip', formatHost(container), '-container-port', String(container.port)];
  return ['-proto', protocol, '-host-ip', host, '-host-port', String(port), ...to];
}

/** Which socket dockerd binds by itself. */
export type Bound = 'tcp4' | 'tcp6' | 'tcp-dual' | 'udp4' | 'udp6';

/** One proxy and its dockerd; commands and answers are docker-player.c's. */
export class Played {
  readonly #child: ChildProcess;
  #said = '';
  #lines = 0;

  constructor(stage: Stage, subject: Subject, words: readonly string[], bound?: [Bound, string]) {
    if (player === undefined) throw new Error('the player is not built');
    const before = bound === undefined ? [] : [`--${bound[0]}`, bound[1]];
    this.#child = spawn(player, [...before, subject.path, ...words], {
      env: { PATH: '/usr/sbin:/usr/bin:/bin', ...subject.env },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#child.stdout?.on('data', (chunk) => (this.#said += chunk));
    stage.undo(() => this.#child.kill('SIGKILL'));
  }

  async command(line: string): Promise<string> {
    this.#child.stdin?.write(`${line}\n`);
    this.#lines++;
    await until(
      () => this.#said.split('\n').length > this.#lines || this.#child.exitCode !== null,
      line,
      20_000,
    );
    return this.#said.split('\n')[this.#lines - 1] ?? '';
  }

  /** Sends a signal; how it ended, and after how many ms. */
  async ends(
    signal: 'INT' | 'TERM' | 'HUP' | 'QUIT' | 'KILL' | 'wait',
  ): Promise<{ how: string; ms: number }> {
    const [how = '', number = '', ms = ''] = (await this.command(signal)).split(' ');
    return { how: `${how} ${number}`, ms: Number(ms) };
  }

  /** Gives up whatever it is doing. */
  async close(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    this.#child.stdin?.end();
    // It may wait for an end that does not come.
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 500);
    await once(this.#child, 'exit');
    clearTimeout(timer);
  }
}

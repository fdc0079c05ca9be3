/** A dualport that runs, and what is known of it from outside: what it holds, what it counts, what it says. */
import { existsSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Child } from '../../bench/processes.ts';
import type { MemoryInUse } from './memory-probe.ts';

/** How many of each it holds. Exact: after the same work they are the same. */
export interface Holdings {
  readonly descriptors: number;
  readonly sockets: number;
  readonly pipes: number;
  readonly threads: number;
}

export const holdingNames = ['descriptors', 'sockets', 'pipes', 'threads'] as const;

const readyMs = 20_000;
const probeMs = 20_000;

export class Relay {
  readonly child: Child;
  readonly #adminSocket: string;

  constructor(child: Child, adminSocket: string) {
    this.child = child;
    this.#adminSocket = adminSocket;
  }

  get pid(): number {
    return this.child.pid;
  }

  async ready(): Promise<void> {
    const deadline = performance.now() + readyMs;
    while (!this.child.stdout.includes('"msg":"ready"')) {
      if (!this.child.alive) throw new Error(this.child.lastWords);
      if (performance.now() > deadline) throw new Error(`dualport is not ready after ${readyMs / 1000} s`);
      await sleep(5);
    }
  }

  /** Resolves once it has said this so many times. */
  async says(message: string, times: number, patienceMs: number): Promise<void> {
    const deadline = performance.now() + patienceMs;
    while (this.said(message) < times) {
      if (!this.child.alive) throw new Error(this.child.lastWords);
      if (performance.now() > deadline)
        throw new Error(
          `dualport has not said ${JSON.stringify(message)} ${times} times: ${this.child.lastWords}`,
        );
      await sleep(2);
    }
  }

  said(message: string): number {
    return this.child.stdout.split(`"msg":"${message}"`).length - 1;
  }

  holdings(): Holdings {
    const targets = openFiles(this.pid);
    const count = (prefix: string) => targets.filter((target) => target.startsWith(prefix)).length;
    return {
      descriptors: targets.length,
      sockets: count('socket:'),
      pipes: count('pipe:'),
      threads: readdirSync(`/proc/${this.pid}/task`).length,
    };
  }

  /** Once what was closed a moment ago is closed here, too: the least of a while. */
  async restingHoldings(): Promise<Holdings> {
    let least = this.holdings();
    for (let i = 0; i < 10; i++) {
      await sleep(20);
      const now = this.holdings();
      if (now.descriptors < least.descriptors) least = now;
    }
    return least;
  }

  /** TCP sockets of its network in this state, as the kernel names it by number. */
  socketsInState(state: number): number {
    const code = state.toString(16).toUpperCase().padStart(2, '0');
    const own = new Set(openFiles(this.pid).map((target) => /^socket:\[(\d+)\]$/.exec(target)?.[1]));
    return ['tcp', 'tcp6']
      .flatMap((table) => readFileSync(`/proc/${this.pid}/net/${table}`, 'utf8').split('\n'))
      .map((line) => line.trim().split(/\s+/))
      .filter(([, , , is, , , , , , inode]) => is === code && own.has(inode)).length;
  }

  residentKiB(): number {
    return Number(
      /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'))?.[1] ?? Number.NaN,
    );
  }

  /** A counter of /metrics, summed over its labels that contain all of these texts. */
  async metric(name: string, ...labels: readonly string[]): Promise<number> {
    const page = await this.page('/metrics');
    return page
      .split('\n')
      .filter((line) => line.startsWith(name) && labels.every((label) => line.includes(label)))
      .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' '))), 0);
  }

  page(path: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const options = { socketPath: this.#adminSocket, path, agent: false, timeout: 10_000 };
      const request = http.get(options, (response) => {
        let body = '';
        response.on('data', (chunk) => (body += chunk));
        response.on('end', () => resolve(body));
      });
      request.on('timeout', () => request.destroy(new Error(`${path} is not answered within 10 s`)));
      request.on('error', reject);
    });
  }
}

/** One that memory-probe.ts is loaded into. */
export class ProbedRelay extends Relay {
  readonly #path: string;

  constructor(child: Child, adminSocket: string, path: string) {
    super(child, adminSocket);
    this.#path = path;
  }

  async memoryInUse(): Promise<MemoryInUse> {
    rmSync(this.#path, { force: true });
    this.child.process.kill('SIGUSR2');
    const deadline = performance.now() + probeMs;
    while (!existsSync(this.#path)) {
      if (!this.child.alive) throw new Error(this.child.lastWords);
      if (performance.now() > deadline) throw new Error(`no memory figures after ${probeMs / 1000} s`);
      await sleep(10);
    }
    return JSON.parse(readFileSync(this.#path, 'utf8'));
  }
}

function openFiles(pid: number): readonly string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      // Closed meanwhile.
      return [];
    }
  });
}

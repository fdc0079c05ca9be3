/**
 * Where one gate takes place for one engine: a network with nothing but a loopback, which has the frames of Ethernet,
 * since with those of 64 KiB small windows stand still for seconds; the programs in it; and a folder.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadProgram } from '../../bench/load/programs.ts';
import { type Child, type Place, Processes, type StartOptions } from '../../bench/processes.ts';
import { backlogDrops, mayBeTheKernels, mostRuns } from './backlog.ts';
import { type Findings, faultsText } from './findings.ts';
import { probeEnvironment, probeOptions } from './memory-probe.ts';
import type { EngineName, Form } from './options.ts';
import { generator } from './programs.ts';
import { type Holdings, holdingNames, ProbedRelay, Relay } from './relay.ts';
import { spokenLine } from './spoken.ts';

/** Where clients go; the program behind; both below the ports that the kernel gives to clients. */
export const front = 20_080;
export const back = 10_080;

export const publish = ['--publish', `${front}:${back}`, '--to', '127.0.0.1'] as const;

/** What churn says at its end. */
export interface Churned {
  readonly ok: number;
  readonly failed: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly bytes: number;
  readonly seconds: number;
  readonly longestMs: number;
  readonly awaitedMs: number;
}

/** What datagrams says at its end. */
export interface Exchanged {
  readonly sent: number;
  readonly arrived: number;
  readonly answered: number;
  readonly misrouted: number;
  readonly merged: number;
  readonly lost: number;
  readonly failed: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly seconds: number;
}

const ethernetMtu = 1500;
const loopbacks = ['127.0.0.1', '::1'] as const;

/** Nothing that is started for a gate takes longer. */
const patienceSeconds = { ci: 240, soak: 7200, tiny: 60 } as const;

export class Arena {
  readonly engine: EngineName;
  readonly form: Form;
  readonly folder: string;
  readonly #product: string;
  readonly #processes = new Processes();
  readonly #beside: Arena[] = [];
  #place: Place = {};

  /** @param product the main file of what is judged */
  constructor(engine: EngineName, form: Form, product: string, folder: string) {
    this.engine = engine;
    this.form = form;
    this.folder = folder;
    this.#product = product;
    mkdirSync(folder, { recursive: true });
  }

  /**
   * @param settings sysctls of the network
   * @param mtu of its loopback, in bytes
   */
  async open(settings: Readonly<Record<string, string>> = {}, mtu = ethernetMtu): Promise<void> {
    const set = Object.entries(settings).map(([name, value]) => `sysctl -qw '${name}=${value}'`);
    const script = [`ip link set lo up mtu ${mtu}`, ...set, 'echo ready', 'exec cat'].join(' && ');
    // Cat waits for nobody: it holds the network until it is ended.
    const holder = this.#processes.start({}, ['unshare', '--net', 'sh', '-c', script], { stdin: 'pipe' });
    await spokenLine(holder, 1, 10_000);
    this.#place = { netns: `/proc/${holder.pid}/ns/net` };
  }

  /** One more, with a network and a folder of its own, which ends with this one. */
  beside(i: number): Arena {
    const arena = new Arena(this.engine, this.form, this.#product, join(this.folder, `${i}`));
    this.#beside.push(arena);
    return arena;
  }

  /** Ends all that was started. */
  async close(): Promise<void> {
    await Promise.all([this.#processes.close(), ...this.#beside.map((arena) => arena.close())]);
  }

  get openFileLimit(): number {
    return this.#processes.openFileLimit;
  }

  start(command: readonly string[], options?: StartOptions): Child {
    return this.#processes.start(this.#place, command, options);
  }

  run(command: readonly string[]): Promise<string> {
    return this.#processes.run(this.#place, command, patienceSeconds[this.form]);
  }

  /** dualport, once it is ready; its admin socket stays the same. */
  async relay(args: readonly string[]): Promise<Relay> {
    const relay = this.startRelay(args);
    await relay.ready();
    return relay;
  }

  startRelay(args: readonly string[]): Relay {
    return new Relay(this.start(this.#command([], args)), this.#adminSocket);
  }

  /** One that can be asked what memory is in use. */
  async probedRelay(args: readonly string[]): Promise<ProbedRelay> {
    const path = join(this.folder, 'memory.json');
    const child = this.start(this.#command(probeOptions, args), { env: probeEnvironment(path) });
    const relay = new ProbedRelay(child, this.#adminSocket, path);
    await relay.ready();
    return relay;
  }

  get #adminSocket(): string {
    return join(this.folder, 'admin.sock');
  }

  #command(nodeOptions: readonly string[], args: readonly string[]): readonly string[] {
    const own = ['--engine', this.engine, '--admin', this.#adminSocket, '--log-format', 'json'];
    return [process.execPath, ...nodeOptions, this.#product, ...args, ...own];
  }

  /** The bench's echo server. */
  async echo(port: number, address = '127.0.0.1'): Promise<Child> {
    const server = this.start([loadProgram('echo-server'), address, `${port}`, '1']);
    await spokenLine(server, 1, 10_000);
    return server;
  }

  /** A generator of the gates. */
  generator(name: string, args: readonly string[], options?: StartOptions): Child {
    return this.start([generator(name), ...args], options);
  }

  /** Runs churn to its end against a port on both families at once; the sums of both. */
  async churn(port: number, connections: number, args: readonly string[] = []): Promise<Churned> {
    const halves = [Math.ceil(connections / 2), Math.floor(connections / 2)];
    const runs = loopbacks.map(async (address, i) => {
      const words = [address, `${port}`, '--connections', `${halves[i]}`, ...args];
      const said = await this.run([generator('churn'), ...words]);
      return JSON.parse(said.trim().split('\n').at(-1) ?? '') as Churned;
    });
    return addedUp(await Promise.all(runs));
  }

  /** The same with a few that just have to arrive: again where some did not, and the kernel lost packets meanwhile. */
  async loneDatagrams(port: number, flows: number): Promise<Exchanged> {
    for (let runs = 1; ; runs++) {
      const before = backlogDrops();
      const seen = await this.datagrams(port, ['--flows', `${flows}`, '--lone']);
      if (runs === mostRuns || !mayBeTheKernels(seen, before)) return seen;
    }
  }

  /** Runs datagrams to its end, from both families. */
  async datagrams(port: number, args: readonly string[]): Promise<Exchanged> {
    const targets = loopbacks.flatMap((address) => ['--target', address, `${port}`]);
    const words = [...targets, '--sink', '127.0.0.1', `${back}`, ...args];
    return JSON.parse(await this.run([generator('datagrams'), ...words]));
  }

  /** What has to hold behind every gate: it runs, it has complained of nothing, and it serves by every way in. */
  async judgeAfterwards(findings: Findings, relay: Relay, protocol: 'tcp' | 'udp'): Promise<void> {
    judgeAlive(findings, relay);
    if (!relay.child.alive) return;
    if (protocol === 'udp') {
      const asked = await this.loneDatagrams(front, 4);
      findings.equal('clean datagrams afterwards that went wrong', asked.failed, 0, faultsText(asked.faults));
    } else {
      const clean = await this.churn(front, 4);
      findings.equal('clean connections afterwards that failed', clean.failed, 0, faultsText(clean.faults));
      findings.atMost('the longest clean connection afterwards in ms', clean.longestMs, 1000);
    }
  }
}

export function judgeAlive(findings: Findings, relay: Relay): void {
  if (!relay.child.alive) findings.same('dualport', relay.child.lastWords, 'still running');
  findings.same('its standard error', relay.child.stderr.trim(), '');
  findings.equal(
    'unhandled errors in its log',
    relay.child.stdout.split(/unhandled|uncaught/i).length - 1,
    0,
  );
}

function addedUp(all: readonly Churned[]): Churned {
  const sum = (of: (churned: Churned) => number) => all.reduce((total, each) => total + of(each), 0);
  const most = (of: (churned: Churned) => number) => Math.max(...all.map(of));
  const faults: Record<string, number> = {};
  for (const each of all)
    for (const [what, times] of Object.entries(each.faults)) faults[what] = (faults[what] ?? 0) + times;
  return {
    ok: sum(({ ok }) => ok),
    failed: sum(({ failed }) => failed),
    faults,
    bytes: sum(({ bytes }) => bytes),
    seconds: most(({ seconds }) => seconds),
    longestMs: most(({ longestMs }) => longestMs),
    awaitedMs: most(({ awaitedMs }) => awaitedMs),
  };
}

/** Waits until the relay holds what it held before; says by what it differs, or nothing. */
export async function givenBack(
  relay: Relay,
  before: Holdings,
  patienceMs: number,
  names: readonly (keyof Holdings)[] = holdingNames,
): Promise<string> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const now = relay.holdings();
    const different = names.filter((name) => now[name] !== before[name]);
    if (different.length === 0) return '';
    if (performance.now() > deadline)
      return different.map((name) => `${name} ${signed(now[name] - before[name])}`).join(', ');
    await sleep(50);
  }
}

function signed(difference: number): string {
  return difference > 0 ? `+${difference}` : String(difference);
}

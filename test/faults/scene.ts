/**
 * What one row has at hand: a relay that it starts as it wants it, clients and upstreams in this process, faults. When
 * the row is over, everything of it is taken away and the relay is judged once more.
 */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Endpoint } from '../../src/net/address.ts';
import { at, Peers } from '../engine/harness.ts';
import type { Stage } from '../support/dualport.ts';
import { judge, restingDescriptors, servesCleanly } from './aftermath.ts';
import { filterInput, sysctl } from './network.ts';
import { type Descriptors, Relay } from './relay.ts';
import { type Publication, type Subject, type Wanted, withFiles } from './subject.ts';
import { NothingSaid } from './verdict.ts';

/** Ports of the row at hand; those from 32768 on the kernel gives to clients. */
let nextPort = 10_000;
const portsARow = 100;
const lastPort = 30_000;

/** How a program ended that was not to start; status undefined: it did. */
export interface Refusal {
  readonly status: number | null | undefined;
  readonly said: string;
}

export class Scene extends Peers {
  readonly subject: Subject;
  readonly stage: Stage;
  /** The port that is published, and the one of the upstream; the next ones of both are the row's, too. */
  readonly front: number;
  readonly back: number;
  /** The row ends the relay: it is not judged. */
  endsRelay = false;
  #relay: Relay | undefined;
  #before: Descriptors = { sockets: 0, pipes: 0, others: 0 };

  constructor(subject: Subject, stage: Stage) {
    super();
    this.subject = subject;
    this.stage = stage;
    this.front = nextPort;
    this.back = nextPort + portsARow / 2;
    nextPort = nextPort + 2 * portsARow > lastPort ? 10_000 : nextPort + portsARow;
  }

  /** What is published unless the row says otherwise. */
  get tcpRule(): Publication {
    return { protocol: 'tcp', port: this.front, to: { host: '127.0.0.1', port: this.back } };
  }

  get udpRule(): Publication {
    return { ...this.tcpRule, protocol: 'udp' };
  }

  /** Where clients go. */
  get door(): Endpoint {
    return at('127.0.0.1', this.front);
  }

  get door6(): Endpoint {
    return at('::1', this.front);
  }

  async relay(wanted: Partial<Wanted> = {}): Promise<Relay> {
    const relay = new Relay(this.stage, this.subject, this.#whole(wanted));
    this.#relay = relay;
    await relay.start();
    if (relay.wanted.files === undefined) await servesCleanly(relay, false);
    this.#before = await restingDescriptors(relay);
    return relay;
  }

  /** The same relay, killed and started again as something else. */
  async restart(relay: Relay, wanted: Partial<Wanted>): Promise<void> {
    relay.kill();
    await relay.exits();
    await relay.start(this.#whole(wanted));
    this.#before = await restingDescriptors(relay);
  }

  /**
   * Starts it where it must not start.
   *
   * @param words in front of its command
   */
  async refusedRelay(wanted: Partial<Wanted>, words: readonly string[] = []): Promise<readonly Refusal[]> {
    const whole = this.#whole(wanted);
    const place = { prefix: [...words, ...withFiles(whole).prefix] };
    const commands = this.subject.commands(this.stage.directory(), whole);
    // Of a program that is a process for each port some do start.
    const patienceMs = commands.length > 1 ? 3000 : 30_000;
    return Promise.all(
      commands.map(async ([command = '', ...args]) => {
        const program = this.stage.background(place, command, args);
        const exit = await Promise.race([program.exit, sleep(patienceMs, undefined, { ref: false })]);
        return { status: exit?.code, said: program.stdout + program.stderr };
      }),
    );
  }

  /** This many times, some at once. */
  async crowd<T>(count: number, act: (index: number) => Promise<T>, atOnce = 50): Promise<T[]> {
    const results: T[] = [];
    let next = 0;
    const worker = async () => {
      for (let i = next++; i < count; i = next++) results[i] = await act(i);
    };
    await Promise.all(Array.from({ length: Math.min(atOnce, count) }, worker));
    return results;
  }

  /** A TCP upstream where the relay looks for it. */
  upstream(handle: (socket: Socket) => void): Promise<Endpoint> {
    return this.server('127.0.0.1', handle, this.back);
  }

  /** What comes in is dropped or refused, by nft's rules. */
  filter(...rules: readonly string[]): void {
    this.defer(filterInput(rules));
  }

  /** Of this network, for this row. */
  sysctl(name: string, value: string): void {
    const before = sysctl(name, value);
    this.defer(() => sysctl(name, before));
  }

  /** Whatever became of the row. */
  async clear(): Promise<void> {
    this.#relay?.kill();
    await this.close();
    await this.stage.close();
  }

  /** Takes the row away and judges the relay. */
  async end(): Promise<void> {
    await this.close();
    if (this.#relay !== undefined && !this.endsRelay) await judge(this.#relay, this.#before);
  }

  #whole(wanted: Partial<Wanted>): Wanted {
    const whole = { publish: [this.tcpRule], ...wanted };
    const reason = this.subject.cannot(whole);
    if (reason !== undefined) throw new NothingSaid(reason);
    return whole;
  }
}

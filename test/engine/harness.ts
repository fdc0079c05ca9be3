/**
 * Real sockets for one test: upstream servers and clients are made here and all closed at the end, so that a case
 * reads as what happens and what must follow. A Harness also has the engine between them.
 */

import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { RuleGroup } from '../../src/engine/admission.ts';
import type { Engine, Listener, Plan, Timeouts } from '../../src/engine/engine.ts';
import { endedCleanly } from '../../src/engine/portable/reset.ts';
import type { ReplyBudget } from '../../src/engine/reply-budget.ts';
import type { CounterName } from '../../src/flow/counters.ts';
import { readCounter } from '../../src/flow/counters.ts';
import type { Announcement, FlowRecord, NewFlow, Protocol, Verdict } from '../../src/flow/flow.ts';
import { type Endpoint, formatHost, parseAddress } from '../../src/net/address.ts';

export const timeouts: Timeouts = {
  connectMs: 5000,
  raceMs: 250,
  headerMs: 5000,
  idleMs: 0,
  halfCloseMs: 120_000,
  udpMs: 30_000,
  udpStreamMs: 180_000,
};

/** A path through the engine: the client's family, then the upstream's. */
export interface Path {
  readonly name: string;
  readonly listen: string;
  readonly upstream: string;
}

export const paths: readonly Path[] = [
  { name: '4→4', listen: '127.0.0.1', upstream: '127.0.0.1' },
  { name: '6→6', listen: '::1', upstream: '::1' },
  { name: '6→4', listen: '::1', upstream: '127.0.0.1' },
  { name: '4→6', listen: '127.0.0.1', upstream: '::1' },
];

export function at(host: string, port: number): Endpoint {
  return { address: parseAddress(host), zone: '', port };
}

export interface PlanOptions {
  readonly timeouts?: Partial<Timeouts>;
  readonly limits?: Partial<Plan['limits']>;
  readonly trusts?: Plan['trusts'];
  readonly announce?: Partial<Announcement>;
  readonly decide?: Plan['decide'];
  readonly approach?: Plan['approach'];
  readonly group?: RuleGroup;
  readonly replies?: ReplyBudget;
}

export class Peers {
  readonly #closers: (() => unknown)[] = [];

  /** A TCP server that hands each connection to `handle`; returns where it listens. */
  async server(host: string, handle: (socket: net.Socket) => void, port = 0): Promise<Endpoint> {
    const sockets = new Set<net.Socket>();
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      sockets.add(socket);
      socket.on('error', () => {}).on('close', () => sockets.delete(socket));
      handle(socket);
    });
    server.listen({ host, port, backlog: 4096 });
    await once(server, 'listening');
    this.defer(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    return at(host, (server.address() as net.AddressInfo).port);
  }

  /** A TCP server that sends back what it gets, and ends when the client does. */
  echo(host: string, port = 0): Promise<Endpoint> {
    return this.server(host, (socket) => socket.pipe(socket), port);
  }

  /** A port where nothing listens. */
  async closedPort(host: string): Promise<Endpoint> {
    const server = net.createServer().listen(0, host);
    await once(server, 'listening');
    const { port } = server.address() as net.AddressInfo;
    server.close();
    await once(server, 'close');
    return at(host, port);
  }

  /** @param from an address of this host, and a port of it unless that is 0 */
  async connect(to: Endpoint, from?: Endpoint): Promise<Client> {
    const socket = net.connect({
      host: formatHost(to),
      port: to.port,
      allowHalfOpen: true,
      noDelay: true,
      ...(from && { localAddress: formatHost(from), localPort: from.port }),
    });
    this.defer(() => socket.destroy());
    const client = new Client(socket);
    // A reset right after accept can come before Node says 'connect'.
    await Promise.race([new Promise((resolve) => socket.once('connect', resolve)), client.ending]);
    return client;
  }

  /** A UDP socket on a port of its own; with `to` it is connected, and hears only from there. */
  async udp(host: string, to?: Endpoint, port = 0): Promise<UdpPeer> {
    const socket = dgram.createSocket(host.includes(':') ? 'udp6' : 'udp4');
    socket.bind(port, host);
    await once(socket, 'listening');
    const peer = new UdpPeer(socket, at(host, socket.address().port));
    this.defer(() => peer.close());
    if (to !== undefined) {
      socket.connect(to.port, formatHost(to));
      await once(socket, 'connect');
    }
    return peer;
  }

  /** A UDP server that sends every datagram back. */
  async udpEcho(host: string, port = 0): Promise<UdpPeer> {
    const peer = await this.udp(host, undefined, port);
    peer.socket.on('message', (data, from) => peer.socket.send(data, from.port, from.address));
    return peer;
  }

  /** A UDP port that nobody has. */
  async closedUdpPort(host: string): Promise<Endpoint> {
    const peer = await this.udp(host);
    peer.close();
    return peer.local;
  }

  defer(closer: () => unknown): void {
    this.#closers.push(closer);
  }

  /** May be called again; what was made meanwhile is closed then. */
  async close(): Promise<void> {
    for (const closer of this.#closers.splice(0).reverse()) await closer();
  }
}

export class Harness extends Peers {
  readonly engine: Engine;
  readonly records: FlowRecord[] = [];
  readonly group = new RuleGroup();

  constructor(engine: Engine) {
    super();
    this.engine = engine;
  }

  plan(upstreams: readonly Endpoint[], options: PlanOptions = {}): Plan {
    const verdict = (flow: NewFlow): Verdict => ({
      upstreams,
      announce: announcement(flow, options.announce),
    });
    return {
      rule: 'test',
      decide: options.decide ?? verdict,
      approach: options.approach,
      trusts: options.trusts,
      timeouts: { ...timeouts, ...options.timeouts },
      limits: { perRule: 100_000, perSource: 100_000, ...options.limits },
      replies: options.replies,
      group: options.group ?? this.group,
      ended: (record) => this.records.push(record),
      acceptFailed: () => {},
    };
  }

  listen(
    protocol: Protocol,
    host: string,
    upstreams: readonly Endpoint[],
    options?: PlanOptions,
  ): Promise<Listener> {
    return this.engine.listen(protocol, at(host, 0), this.plan(upstreams, options));
  }

  count(name: CounterName): number {
    return readCounter(this.group.counters, name);
  }

  override async close(): Promise<void> {
    await super.close();
    await this.engine.close();
    await this.engine.close();
  }
}

function announcement(flow: NewFlow, announce: Partial<Announcement> | undefined): Announcement | undefined {
  if (announce === undefined) return undefined;
  const base = { version: 2, crc32c: false, uniqueId: false, datagrams: 'every' } as const;
  return { ...base, source: flow.client, destination: flow.dialled, ...announce };
}

/** A TCP client that remembers what came and how it ended. */
export class Client {
  readonly socket: net.Socket;
  received: Buffer = Buffer.alloc(0);
  /** 'end' for FIN, the errno for anything else; asked of the kernel, because Node 20 takes some resets for ends. */
  readonly ending: Promise<string>;

  constructor(socket: net.Socket) {
    this.socket = socket;
    socket.on('data', (chunk) => {
      this.received = Buffer.concat([this.received, chunk]);
    });
    this.ending = new Promise((resolve) => {
      socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'));
      socket.on('end', () => resolve(endedCleanly(socket) ? 'end' : 'ECONNRESET'));
      socket.on('close', () => resolve('close'));
    });
  }

  async text(length: number): Promise<string> {
    await until(() => this.received.length >= length, `${length} bytes, got ${this.received.length}`);
    return this.received.toString('latin1');
  }
}

/** A UDP socket that remembers what came, and from where. */
export class UdpPeer {
  readonly socket: dgram.Socket;
  readonly local: Endpoint;
  readonly received: Buffer[] = [];
  readonly from: dgram.RemoteInfo[] = [];
  #closed = false;

  constructor(socket: dgram.Socket, local: Endpoint) {
    this.socket = socket;
    this.local = local;
    socket.on('message', (data, from) => {
      this.received.push(data);
      this.from.push(from);
    });
    socket.on('error', () => {});
  }

  get texts(): readonly string[] {
    return this.received.map((data) => data.toString());
  }

  /** Sends; without `to` where the socket is connected to. */
  send(data: Buffer | string, to?: Endpoint): void {
    if (to === undefined) this.socket.send(data);
    else this.socket.send(data, to.port, formatHost(to));
  }

  /** Sends back to where the datagram at this index came from. */
  answer(data: Buffer | string, index = this.from.length - 1): void {
    const from = this.from[index];
    if (from !== undefined) this.socket.send(data, from.port, from.address);
  }

  async datagrams(length: number): Promise<readonly Buffer[]> {
    await until(() => this.received.length >= length, `${length} datagrams, got ${this.received.length}`);
    return this.received;
  }

  close(): void {
    if (!this.#closed) this.socket.close();
    this.#closed = true;
  }
}

/** Waits for a condition of the outside world, ten seconds at most. */
export async function until(condition: () => boolean, what: string, limitMs = 10_000): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await sleep(5);
  }
}

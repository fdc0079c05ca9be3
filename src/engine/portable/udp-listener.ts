/**
 * A bound UDP socket: finds the flow of each datagram by the client's address and port, opens new ones, and
 * sends the answers. node:dgram has no IP_PKTINFO, so on a wildcard address answers leave from the address
 * the kernel chooses; bind one listener per address where that matters.
 *
 * Dropped before any flow is looked at: source port 0 (nobody can be answered there, and node:dgram throws).
 * Dropped before a flow is made: sources that are not unicast, and our own listeners (two services answering
 * each other for ever).
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { networkInterfaces } from 'node:os';
import { count } from '../../flow/counters.ts';
import type { CloseReason, NewFlow } from '../../flow/flow.ts';
import {
  type Endpoint,
  endpointKey,
  endpointOf,
  equalAddress,
  formatHost,
  isIpv4,
  isLoopback,
  isUnicast,
  tryParseZoned,
} from '../../net/address.ts';
import { decode } from '../../proxy-protocol/codec.ts';
import type { Listener, Plan } from '../engine.ts';
import type { PortableContext } from './context.ts';
import { maxQueuedBytes, numericLookup } from './datagrams.ts';
import { UdpFlow, type UdpFlowOwner } from './udp-flow.ts';

/**
 * What may wait while JavaScript is busy. The kernel's default of 208 KiB is full after 277 small datagrams;
 * bursts of 400 from a faster client lost a quarter, and nothing with this (Linux gives twice the number).
 */
const receiveBufferBytes = 1024 * 1024;

export async function listenUdp(context: PortableContext, at: Endpoint, plan: Plan): Promise<Listener> {
  const type = isIpv4(at.address) ? 'udp4' : 'udp6';
  // No reuseAddr: it would let another local process bind a part of the address and take our datagrams.
  const socket = createSocket({ type, ipv6Only: type === 'udp6', reuseAddr: false, lookup: numericLookup });
  await bound(socket, at);
  widen(socket);
  return new UdpListener(context, socket, at, plan);
}

class UdpListener implements Listener, UdpFlowOwner {
  readonly local: Endpoint;
  readonly #context: PortableContext;
  readonly #socket: Socket;
  /** By the client's address text as node:dgram gives it, then by port: no key is built per datagram. */
  readonly #flows = new Map<string, Map<number, UdpFlow>>();
  readonly #keys = new Map<UdpFlow, string>();
  #plan: Plan;
  /** The last peer that sent a header, and whether it may. */
  #lastPeer = '';
  #lastTrusted = false;
  #stopped = false;
  #closed = false;

  constructor(context: PortableContext, socket: Socket, at: Endpoint, plan: Plan) {
    this.#context = context;
    this.#socket = socket;
    this.#plan = plan;
    this.local = { ...at, port: socket.address().port };
    context.listeners.add(this);
    context.openUdpPort(this.local.port);
    socket.on('message', (datagram, from) => this.#receive(datagram, from));
    // Only a failed receive comes here; the socket goes on.
    socket.on('error', () => {});
  }

  replace(plan: Plan): void {
    this.#plan = plan;
    this.#lastPeer = '';
  }

  async stop(): Promise<void> {
    this.#stopped = true;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopped = true;
    this.#context.listeners.delete(this);
    this.#context.closeUdpPort(this.local.port);
    for (const flow of [...this.#keys.keys()]) flow.abort('rule-changed');
    await new Promise<void>((resolve) => this.#socket.close(() => resolve()));
  }

  reply(datagram: Buffer, flow: UdpFlow): void {
    if (this.#closed) return;
    if (this.#socket.getSendQueueSize() > maxQueuedBytes) return this.#dropped('droppedQueue');
    this.#socket.send(datagram, flow.peerPort, flow.peerHost, this.#replied);
  }

  forget(flow: UdpFlow): void {
    const key = this.#keys.get(flow);
    if (key === undefined) return;
    this.#keys.delete(flow);
    const byPort = this.#flows.get(key);
    byPort?.delete(flow.peerPort);
    if (byPort?.size === 0) this.#flows.delete(key);
  }

  readonly #replied = (error: Error | null): void => {
    if (error !== null)
      this.#dropped('code' in error && error.code === 'EMSGSIZE' ? 'droppedOversize' : 'droppedQueue');
  };

  #dropped(counter: 'droppedOversize' | 'droppedQueue' | 'droppedSource' | 'droppedNoUpstream'): void {
    count(this.#plan.group.counters, counter);
  }

  #receive(datagram: Buffer, from: RemoteInfo): void {
    if (from.port === 0) this.#dropped('droppedSource');
    else if (this.#plan.trusts === undefined) this.#relay(datagram, from, from.address, undefined);
    else this.#receiveAnnounced(datagram, from);
  }

  /** Each datagram carries its own header (PROXY protocol, 2.2), so each is a word about its own client. */
  #receiveAnnounced(datagram: Buffer, from: RemoteInfo): void {
    if (!this.#isTrusted(from.address)) return this.#badHeader(from, 'header-untrusted');
    const decoded = decode(datagram, 'udp');
    if (decoded.state !== 'done') {
      const missing = decoded.state === 'error' && decoded.error === 'not-proxy';
      return this.#badHeader(from, missing ? 'header-missing' : 'header-invalid');
    }
    const { source, destination } = decoded.header;
    const announced = source && destination ? { client: source, dialled: destination } : undefined;
    const key = announced
      ? `${from.address} ${endpointKey(announced.client)} ${endpointKey(announced.dialled)}`
      : from.address;
    this.#relay(datagram.subarray(decoded.length), from, key, announced);
  }

  #badHeader(from: RemoteInfo, reason: CloseReason): void {
    count(this.#plan.group.counters, 'headerErrors');
    this.#refuse(this.#newFlow(endpointOf(from.address, from.port)), reason);
  }

  /** No address is read per datagram: nearly all come from one and the same proxy in front. */
  #isTrusted(host: string): boolean {
    if (host !== this.#lastPeer) {
      this.#lastTrusted = this.#plan.trusts?.(endpointOf(host, 0).address) === true;
      this.#lastPeer = host;
    }
    return this.#lastTrusted;
  }

  #relay(
    datagram: Buffer,
    from: RemoteInfo,
    key: string,
    announced: Pick<NewFlow, 'client' | 'dialled'> | undefined,
  ): void {
    const known = this.#flows.get(key)?.get(from.port);
    if (known !== undefined && (known.plan === this.#plan || known.follow(this.#plan))) {
      known.fromClient(datagram);
    } else if (!this.#stopped) {
      this.#open(from, key, announced)?.fromClient(datagram);
    }
  }

  #open(
    from: RemoteInfo,
    key: string,
    announced: Pick<NewFlow, 'client' | 'dialled'> | undefined,
  ): UdpFlow | undefined {
    const peer = endpointOf(from.address, from.port);
    if (!isUnicast(peer.address) || this.#isOwnListener(peer)) {
      this.#dropped('droppedSource');
      return undefined;
    }
    const opened = this.#admit({ ...this.#newFlow(peer), ...announced });
    if (opened === undefined) return undefined;
    this.#keys.set(opened, key);
    const byPort = this.#flows.get(key);
    if (byPort === undefined) this.#flows.set(key, new Map([[from.port, opened]]));
    else byPort.set(from.port, opened);
    return opened;
  }

  #newFlow(peer: Endpoint): NewFlow {
    return { protocol: 'udp', peer, local: this.local, client: peer, dialled: this.local };
  }

  #admit(flow: NewFlow): UdpFlow | undefined {
    const plan = this.#plan;
    const verdict = plan.decide(flow);
    if ('refuse' in verdict) {
      count(plan.group.counters, verdict.refuse === 'no-upstream' ? 'droppedNoUpstream' : 'refusedByAccess');
      return this.#refuse(flow, verdict.refuse);
    }
    const place = this.#context.admission.admit(plan.group, plan.limits, 'udp', flow.client.address);
    if (typeof place === 'string') return this.#refuse(flow, place);
    return new UdpFlow(this.#context, this, plan, flow, place, verdict);
  }

  /** A datagram that makes no flow has a record all the same: somebody wants to know why it went nowhere. */
  #refuse(flow: NewFlow, reason: CloseReason): undefined {
    const nothing = { upstream: undefined, fallback: false, uniqueId: undefined, durationMs: 0 };
    this.#plan.ended({ rule: this.#plan.rule, flow, ...nothing, bytes: [0, 0], reason });
  }

  #isOwnListener(peer: Endpoint): boolean {
    return this.#context.isUdpPort(peer.port) && isOwnAddress(peer);
  }
}

function isOwnAddress(peer: Endpoint): boolean {
  if (isLoopback(peer.address)) return true;
  return Object.values(networkInterfaces()).some((addresses) =>
    addresses?.some(({ address }) => {
      const own = tryParseZoned(address);
      return own !== undefined && equalAddress(own.address, peer.address);
    }),
  );
}

/** As far as the system lets us: Linux gives what net.core.rmem_max allows, others refuse what is too much. */
function widen(socket: Socket): void {
  try {
    socket.setRecvBufferSize(receiveBufferBytes);
  } catch {
    // The system's own size it is.
  }
}

function bound(socket: Socket, at: Endpoint): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error) => {
      socket.close();
      reject(error);
    };
    socket.once('error', failed);
    socket.bind({ address: formatHost(at), port: at.port, exclusive: true }, () => {
      socket.off('error', failed);
      resolve();
    });
  });
}

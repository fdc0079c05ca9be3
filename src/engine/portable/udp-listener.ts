/**
 * A bound UDP socket: finds the flow of each datagram by the client's address and port, opens new ones, and
 * sends the answers. node:dgram has no IP_PKTINFO, so on a wildcard address answers leave from the address
 * the kernel chooses; bind one listener per address where that matters.
 *
 * Dropped before any flow is looked at: source port 0 (nobody can be answered there, and node:dgram throws), and
 * those of services that answer anything. Dropped before a flow is made: sources that are not unicast, and our own
 * listeners (two services answering each other for ever).
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { count } from '../../flow/counters.ts';
import type { CloseReason, NewFlow } from '../../flow/flow.ts';
import { type Endpoint, endpointKey, endpointOf, formatHost, isIpv4, isUnicast } from '../../net/address.ts';
import type { EngineContext } from '../context.ts';
import type { Listener, Plan } from '../engine.ts';
import { isCircle } from '../passage.ts';
import { type Announced, admitUdp, readAnnounced, refuseUdp } from '../udp-door.ts';
import { isDroppedSource } from '../udp-ports.ts';
import { maxQueuedBytes, numericLookup } from './datagrams.ts';
import { PortableUdpFlow, type UdpFlowOwner } from './udp-flow.ts';

/**
 * What may wait while JavaScript is busy. The kernel's default of 208 KiB is full after 277 small datagrams;
 * bursts of 400 from a faster client lost a quarter, and nothing with this (Linux gives twice the number).
 */
const receiveBufferBytes = 1024 * 1024;

export async function listenUdp(context: EngineContext, at: Endpoint, plan: Plan): Promise<Listener> {
  const type = isIpv4(at.address) ? 'udp4' : 'udp6';
  // No reuseAddr: it would let another local process bind a part of the address and take our datagrams.
  const socket = createSocket({ type, ipv6Only: type === 'udp6', reuseAddr: false, lookup: numericLookup });
  await bound(socket, at);
  widen(socket);
  return new UdpListener(context, socket, at, plan);
}

class UdpListener implements Listener, UdpFlowOwner {
  readonly local: Endpoint;
  readonly #context: EngineContext;
  readonly #socket: Socket;
  /** By the client's address text as node:dgram gives it, then by port: no key is built per datagram. */
  readonly #flows = new Map<string, Map<number, PortableUdpFlow>>();
  readonly #keys = new Map<PortableUdpFlow, string>();
  #plan: Plan;
  /** The last peer that sent a header, and whether it may. */
  #lastPeer = '';
  #lastTrusted = false;
  #stopped = false;
  #closed = false;

  constructor(context: EngineContext, socket: Socket, at: Endpoint, plan: Plan) {
    this.#context = context;
    this.#socket = socket;
    this.#plan = plan;
    this.local = { ...at, port: socket.address().port };
    context.listeners.add(this);
    context.udpPorts.open(this.local.port);
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
    this.#context.udpPorts.close(this.local.port);
    for (const flow of [...this.#keys.keys()]) flow.abort('rule-changed');
    await new Promise<void>((resolve) => this.#socket.close(() => resolve()));
  }

  reply(datagram: Buffer, flow: PortableUdpFlow): void {
    if (this.#closed) return;
    if (this.#socket.getSendQueueSize() > maxQueuedBytes) return this.#dropped('droppedQueue');
    this.#socket.send(datagram, flow.peerPort, flow.peerHost, this.#replied);
  }

  forget(flow: PortableUdpFlow): void {
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
    if (isDroppedSource(from.port)) this.#dropped('droppedSource');
    else if (this.#plan.trusts === undefined) this.#relay(datagram, from, from.address, undefined);
    else this.#receiveAnnounced(datagram, from);
  }

  #receiveAnnounced(datagram: Buffer, from: RemoteInfo): void {
    if (!this.#isTrusted(from.address)) return this.#badHeader(from, 'header-untrusted');
    const read = readAnnounced(datagram);
    if (typeof read === 'string') return this.#badHeader(from, read);
    const { payload, announced } = read;
    const key = announced
      ? `${from.address} ${endpointKey(announced.client)} ${endpointKey(announced.dialled)}`
      : from.address;
    this.#relay(payload, from, key, announced);
  }

  #badHeader(from: RemoteInfo, reason: CloseReason): void {
    count(this.#plan.group.counters, 'headerErrors');
    refuseUdp(this.#plan, this.#newFlow(endpointOf(from.address, from.port)), reason);
  }

  /** No address is read per datagram: nearly all come from one and the same proxy in front. */
  #isTrusted(host: string): boolean {
    if (host !== this.#lastPeer) {
      this.#lastTrusted = this.#plan.trusts?.(endpointOf(host, 0).address) === true;
      this.#lastPeer = host;
    }
    return this.#lastTrusted;
  }

  #relay(datagram: Buffer, from: RemoteInfo, key: string, announced: Announced): void {
    const known = this.#flows.get(key)?.get(from.port);
    if (known !== undefined && (known.plan === this.#plan || known.follow(this.#plan))) {
      known.fromClient(datagram);
    } else if (!this.#stopped) {
      this.#open(from, key, announced)?.fromClient(datagram);
    }
  }

  #open(from: RemoteInfo, key: string, announced: Announced): PortableUdpFlow | undefined {
    const peer = endpointOf(from.address, from.port);
    const { udpPorts } = this.#context;
    const isOurs = udpPorts.isOwn(peer) || isCircle(udpPorts.passageOf(peer), this.#plan.group);
    if (!isUnicast(peer.address) || isOurs) {
      this.#dropped('droppedSource');
      return undefined;
    }
    const flow = { ...this.#newFlow(peer), ...announced };
    const plan = this.#plan;
    const admitted = admitUdp(this.#context, plan, flow);
    if (admitted === undefined) return undefined;
    const { place, accepted } = admitted;
    const opened = new PortableUdpFlow(this.#context, this, plan, flow, place, accepted);
    this.#keys.set(opened, key);
    const byPort = this.#flows.get(key);
    if (byPort === undefined) this.#flows.set(key, new Map([[from.port, opened]]));
    else byPort.set(from.port, opened);
    return opened;
  }

  #newFlow(peer: Endpoint): NewFlow {
    return { protocol: 'udp', peer, local: this.local, client: peer, dialled: this.local };
  }
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

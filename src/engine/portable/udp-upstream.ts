/**
 * The upstream side of one UDP flow on sockets of node:dgram: one socket per candidate, opened with the first
 * datagram that goes there.
 */
import { createSocket, type Socket } from 'node:dgram';
import { type Counters, count } from '../../flow/counters.ts';
import type { Source } from '../../flow/flow.ts';
import { type Endpoint, endpointOf, formatAddress, formatHost, isIpv4 } from '../../net/address.ts';
import type { EngineContext } from '../context.ts';
import { onAnyPort } from '../race.ts';
import { type Accepted, UdpUpstream, type UdpUpstreamOwner } from '../udp-upstream.ts';
import { maxQueuedBytes, numericLookup } from './datagrams.ts';

export interface AnswerTaker extends UdpUpstreamOwner {
  answer(datagram: Buffer): void;
}

export class PortableUdpUpstream extends UdpUpstream {
  readonly #taker: AnswerTaker;
  #socket: Socket | undefined;
  #ready = false;

  constructor(
    context: EngineContext,
    taker: AnswerTaker,
    accepted: Accepted,
    header: Buffer | undefined,
    counters: Counters,
  ) {
    super(context, taker, accepted, header, counters);
    this.#taker = taker;
  }

  get local(): Endpoint | undefined {
    if (this.#socket === undefined || !this.#ready) return undefined;
    const { address, port } = this.#socket.address();
    return endpointOf(address, port);
  }

  protected transmit(datagram: Buffer, upstream: Endpoint): void {
    if (this.#socket === undefined && !this.#open(upstream)) return;
    const socket = this.#socket;
    // Not ready: its error event is due, and brings the next candidate.
    if (socket === undefined || !this.#ready) return;
    if (socket.getSendQueueSize() > maxQueuedBytes) return count(this.counters, 'droppedQueue');
    const header = this.headerDue();
    if (header === undefined) socket.send(datagram, this.#sent);
    else socket.send([header, datagram], this.#sentAnnounced);
  }

  protected leave(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }

  /** A socket that could not be connected is of no use to the datagrams that follow. */
  protected stay(): void {
    if (!this.#ready) this.leave();
  }

  protected shut(): void {
    this.leave();
  }

  /** node:dgram gives every datagram memory of its own. */
  protected ownCopy(datagram: Buffer): Buffer {
    return datagram;
  }

  /**
   * A connected socket to the present candidate. A failed connect comes back as the socket's error event. A
   * failed bind has done so before this returns false: the kept datagram is then with the next candidate.
   */
  #open(upstream: Endpoint): boolean {
    this.findWay(upstream);
    return this.#openFrom(this.source, upstream);
  }

  #openFrom(source: Source | undefined, upstream: Endpoint): boolean {
    const type = isIpv4(upstream.address) ? 'udp4' : 'udp6';
    const socket = createSocket({ type, ipv6Only: type === 'udp6', lookup: numericLookup });
    this.#socket = socket;
    this.#ready = false;
    this.announced = false;
    socket.on('message', this.#received);
    let other: Source | undefined;
    let isBound = false;
    socket.on('error', (error: NodeJS.ErrnoException) => {
      // Errors of a candidate that was left meanwhile are nobody's news.
      if (socket !== this.#socket) return;
      other = isBound ? undefined : onAnyPort(source, error.code);
      if (other === undefined) this.failed(error.code);
    });
    const address = source === undefined ? {} : { address: formatAddress(source.address) };
    socket.bind({ ...address, port: source?.port ?? 0, exclusive: true });
    if (other !== undefined) {
      this.leave();
      return this.#openFrom(other, upstream);
    }
    if (socket !== this.#socket) return false;
    isBound = true;
    socket.connect(upstream.port, formatHost(upstream));
    this.#ready = isConnected(socket);
    if (!this.#ready || !hasMetItself(socket)) return true;
    this.leave();
    this.failed('ECONNREFUSED');
    return false;
  }

  readonly #received = (datagram: Buffer): void => {
    if (!this.answered) this.firstAnswer();
    this.#taker.answer(datagram);
  };

  readonly #sent = (error: NodeJS.ErrnoException | null): void => {
    if (error !== null) this.failed(error.code);
  };

  /** A header that did not leave is still due, unless it was for a candidate that was left meanwhile. */
  readonly #sentAnnounced = (error: NodeJS.ErrnoException | null): void => {
    if (error !== null && error.code !== 'ECANCELED') this.announced = false;
    this.#sent(error);
  };
}

function isConnected(socket: Socket): boolean {
  try {
    socket.remoteAddress();
    return true;
  } catch {
    return false;
  }
}

/** Bound by chance to the very port it is connected to, which nobody has: it would hear itself. */
function hasMetItself(socket: Socket): boolean {
  const [local, remote] = [socket.address(), socket.remoteAddress()];
  return local.port === remote.port && local.address === remote.address;
}

/**
 * The upstream side of one UDP flow: its candidates in order, and a connected socket to the present one, which
 * drops whatever does not come from there.
 *
 *   unanswered ── answer ──► answered ── ICMP refusal ──► unanswered
 *      └── ICMP refusal ──► the kept datagram goes to the next candidate
 *
 * UDP has no handshake, so until the first answer the last datagram is kept (within the engine's budget) and a
 * refusal sends it on. A refusal ends nothing: when no candidate is left the last one stays, and the whole
 * order is tried again for a datagram that comes a second later.
 */
import { createSocket, type Socket } from 'node:dgram';
import { type CounterName, type Counters, count } from '../../flow/counters.ts';
import type { Verdict } from '../../flow/flow.ts';
import { type Endpoint, equalEndpoint, formatHost, isIpv4 } from '../../net/address.ts';
import { type ConnectFailure, connectFailure, failureCounter } from '../race.ts';
import type { PortableContext } from './context.ts';
import { maxQueuedBytes, numericLookup } from './datagrams.ts';

/** After every candidate has refused, the order is tried anew for a datagram this much later. */
const retryMs = 1000;

export type Accepted = Exclude<Verdict, { refuse: unknown }>;

export interface UdpUpstreamOwner {
  /** A datagram came; `first` when none had come since the flow began, or since `gone`. */
  answer(datagram: Buffer, first: boolean): void;
  /** Who had answered refuses now. */
  gone(): void;
}

export class UdpUpstream {
  readonly #context: PortableContext;
  readonly #owner: UdpUpstreamOwner;
  readonly #accepted: Accepted;
  readonly #counters: Counters;
  readonly #header: Buffer | undefined;
  #order: readonly Endpoint[];
  #index = 0;
  #socket: Socket | undefined;
  #ready = false;
  #announced = false;
  #answered = false;
  #kept: Buffer | undefined;
  #exhaustedMs = 0;
  #failure: ConnectFailure | undefined;
  #closed = false;

  /** @param header the PROXY header's bytes, when the upstream is to know the client */
  constructor(
    context: PortableContext,
    owner: UdpUpstreamOwner,
    accepted: Accepted,
    header: Buffer | undefined,
    counters: Counters,
  ) {
    this.#context = context;
    this.#owner = owner;
    this.#accepted = accepted;
    this.#header = header;
    this.#counters = counters;
    this.#order = context.failed.udp.order(accepted.upstreams);
  }

  /** Why nobody could be reached in the last round through the order; undefined when that is not known. */
  get failure(): ConnectFailure | undefined {
    return this.#exhaustedMs === 0 ? undefined : this.#failure;
  }

  get answered(): boolean {
    return this.#answered;
  }

  /** The present candidate. */
  get endpoint(): Endpoint | undefined {
    return this.#order[this.#index];
  }

  /** Is the present candidate another than the first of the verdict? */
  get isFallback(): boolean {
    const [preferred] = this.#accepted.upstreams;
    const present = this.endpoint;
    return preferred !== undefined && present !== undefined && !equalEndpoint(present, preferred);
  }

  send(datagram: Buffer): void {
    if (!this.#answered) {
      this.#keep(datagram);
      if (this.#exhaustedMs !== 0 && performance.now() - this.#exhaustedMs > retryMs) this.#startOver();
    }
    this.#sendNow(datagram);
  }

  close(): void {
    this.#closed = true;
    this.#closeSocket();
    this.#keep(undefined);
  }

  #sendNow(datagram: Buffer): void {
    if (this.#socket === undefined && !this.#open()) return;
    const socket = this.#socket;
    // Not ready: its error event is due, and brings the next candidate.
    if (socket === undefined || !this.#ready) return;
    if (socket.getSendQueueSize() > maxQueuedBytes) return count(this.#counters, 'droppedQueue');
    const header = this.#headerDue();
    if (header === undefined) socket.send(datagram, this.#sent);
    else socket.send([header, datagram], this.#sentAnnounced);
  }

  #headerDue(): Buffer | undefined {
    if (this.#announced && this.#accepted.announce?.datagrams === 'first') return undefined;
    this.#announced = true;
    return this.#header;
  }

  /**
   * A connected socket to the present candidate. A failed connect comes back as the socket's error event. A
   * failed bind has done so before this returns false: the kept datagram is then with the next candidate.
   */
  #open(): boolean {
    const upstream = this.endpoint;
    if (upstream === undefined) return false;
    const type = isIpv4(upstream.address) ? 'udp4' : 'udp6';
    const socket = createSocket({ type, ipv6Only: type === 'udp6', lookup: numericLookup });
    this.#socket = socket;
    this.#ready = false;
    this.#announced = false;
    socket.on('message', this.#received);
    socket.on('error', (error) => {
      // Errors of a candidate that was left meanwhile are nobody's news.
      if (socket === this.#socket) this.#failed(error);
    });
    socket.bind({ port: 0, exclusive: true });
    if (socket !== this.#socket) return false;
    socket.connect(upstream.port, formatHost(upstream));
    this.#ready = isConnected(socket);
    return true;
  }

  readonly #received = (datagram: Buffer): void => {
    const first = !this.#answered;
    if (first) this.#firstAnswer();
    this.#owner.answer(datagram, first);
  };

  #firstAnswer(): void {
    this.#answered = true;
    this.#exhaustedMs = 0;
    this.#keep(undefined);
    if (this.endpoint !== undefined) this.#context.failed.udp.answered(this.endpoint);
  }

  readonly #sent = (error: Error | null): void => {
    if (error !== null && !this.#closed) this.#failed(error);
  };

  /** A header that did not leave is still due, unless it was for a candidate that was left meanwhile. */
  readonly #sentAnnounced = (error: NodeJS.ErrnoException | null): void => {
    if (error !== null && error.code !== 'ECANCELED') this.#announced = false;
    this.#sent(error);
  };

  #failed(error: NodeJS.ErrnoException): void {
    const dropped = sendFailure[error.code ?? ''];
    if (dropped !== undefined) return count(this.#counters, dropped);
    const failure = connectFailure(error.code);
    if (failure === 'connect-refused') count(this.#counters, 'icmpRefusals');
    // Nobody was there to read the header, or who has read it is gone.
    this.#announced = false;
    if (!this.#answered) return this.#nextCandidate(failure);
    // The program behind went away; what comes next may need another candidate again.
    this.#answered = false;
    this.#owner.gone();
  }

  #nextCandidate(failure: ConnectFailure): void {
    const upstream = this.endpoint;
    if (upstream !== undefined && failure !== 'connect-failed') this.#context.failed.udp.failed(upstream);
    if (this.#index + 1 >= this.#order.length) return this.#exhausted(failure);
    this.#closeSocket();
    this.#index++;
    if (this.#kept !== undefined) this.#sendNow(this.#kept);
  }

  /** Counted once per round through the order: in that round no upstream was reached. */
  #exhausted(failure: ConnectFailure): void {
    if (this.#exhaustedMs === 0) {
      this.#exhaustedMs = performance.now();
      this.#failure = failure;
      count(this.#counters, failureCounter[failure]);
    }
    if (!this.#ready) this.#closeSocket();
  }

  #startOver(): void {
    this.#exhaustedMs = 0;
    if (this.#order.length < 2) return;
    this.#closeSocket();
    this.#order = this.#context.failed.udp.order(this.#accepted.upstreams);
    this.#index = 0;
  }

  /** With a single candidate there is nobody a kept datagram could be sent to. */
  #keep(datagram: Buffer | undefined): void {
    this.#context.keptBytes -= this.#kept?.length ?? 0;
    this.#kept = undefined;
    if (datagram === undefined || this.#order.length < 2) return;
    if (this.#context.keptBytes + datagram.length > this.#context.maxKeptBytes) return;
    this.#kept = datagram;
    this.#context.keptBytes += datagram.length;
  }

  #closeSocket(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }
}

/** Send errors that are about one datagram and not about the upstream. */
const sendFailure: Partial<Record<string, CounterName>> = {
  EMSGSIZE: 'droppedOversize',
  ENOBUFS: 'droppedQueue',
  EAGAIN: 'droppedQueue',
  // A candidate was left with datagrams still queued for it.
  ECANCELED: 'droppedQueue',
};

function isConnected(socket: Socket): boolean {
  try {
    socket.remoteAddress();
    return true;
  } catch {
    return false;
  }
}

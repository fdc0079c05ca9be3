/**
 * The upstream side of one UDP flow: its candidates in order. The connected socket to the present one, which
 * drops whatever does not come from there, is the business of an engine, which fills in the abstract part.
 *
 *   unanswered ── answer ──► answered ── ICMP refusal ──► unanswered
 *      └── ICMP refusal ──► the kept datagram goes to the next candidate
 *
 * UDP has no handshake, so until the first answer the last datagram is kept (within the engine's budget) and a
 * refusal sends it on. A refusal ends nothing: when no candidate is left, and none comes late, the last one stays,
 * and the whole order is tried again for a datagram that comes a second later.
 */
import { type CounterName, type Counters, count } from '../flow/counters.ts';
import type { Source, Verdict } from '../flow/flow.ts';
import { type Endpoint, equalEndpoint } from '../net/address.ts';
import type { EngineContext } from './context.ts';
import { type ConnectFailure, connectFailure, failureCounter, isOwnTrouble } from './race.ts';

/** After every candidate has refused, the order is tried anew for a datagram this much later. */
const retryMs = 1000;

export type Accepted = Exclude<Verdict, { refuse: unknown }>;

/** How a candidate is reached: from where, and with which header before which datagrams. */
export interface Way {
  readonly source: Source | undefined;
  readonly header: Buffer | undefined;
  readonly headed: 'every' | 'first';
}

export interface UdpUpstreamOwner {
  /** The way to a candidate that is to be reached now; undefined where all have the same. */
  wayTo(upstream: Endpoint): Way | undefined;
  /** A datagram came, and none had come since the flow began or since `gone`. */
  answered(): void;
  /** What it sends from there may come back to us. */
  left(from: Endpoint): void;
  /** Who had answered refuses now. */
  gone(): void;
}

export abstract class UdpUpstream {
  protected readonly context: EngineContext;
  protected readonly counters: Counters;
  protected readonly accepted: Accepted;
  /* The way to the present candidate, once it is being reached. */
  protected source: Source | undefined;
  protected header: Buffer | undefined;
  protected headed: 'every' | 'first';
  /** The header is still due: to a new candidate, and again to one that refused. */
  protected announced = false;
  readonly #owner: UdpUpstreamOwner;
  /** Those of the verdict, and those that came late. */
  #known: readonly Endpoint[];
  #order: readonly Endpoint[];
  #index = 0;
  #answered = false;
  #kept: Buffer | undefined;
  #exhaustedMs: number | undefined;
  #failure: ConnectFailure | undefined;
  #asking = false;
  #closed = false;
  #lastSentTo: Endpoint | undefined;

  /** @param header the PROXY header's bytes, when every upstream is to know the client by one */
  constructor(
    context: EngineContext,
    owner: UdpUpstreamOwner,
    accepted: Accepted,
    header: Buffer | undefined,
    counters: Counters,
  ) {
    this.context = context;
    this.counters = counters;
    this.accepted = accepted;
    this.source = undefined;
    this.header = header;
    this.headed = accepted.announce?.datagrams ?? 'every';
    this.#owner = owner;
    this.#known = accepted.upstreams;
    this.#order = context.failed.udp.order(accepted.upstreams);
  }

  /** Sends to the present candidate, through a socket that may have to be opened. */
  protected abstract transmit(datagram: Buffer, upstream: Endpoint): void;
  /** Where datagrams to the present candidate leave from; undefined before there is a socket. */
  abstract get local(): Endpoint | undefined;
  /** The present candidate is left. */
  protected abstract leave(): void;
  /** No candidate is left to go to; the present one stays. */
  protected abstract stay(): void;
  /** The flow is over. */
  protected abstract shut(): void;
  /** A datagram to be kept; a copy where its memory is used again. */
  protected abstract ownCopy(datagram: Buffer): Buffer;

  /**
   * Why nobody could be reached in the last round through the order.
   *
   * @param lastActiveMs of the flow: what came long after the round was not refused
   */
  failure(lastActiveMs: number): ConnectFailure | undefined {
    if (this.#exhaustedMs === undefined || lastActiveMs - this.#exhaustedMs > retryMs) return undefined;
    return this.#failure;
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
    const [preferred] = this.accepted.upstreams;
    const present = this.endpoint;
    return preferred !== undefined && present !== undefined && !equalEndpoint(present, preferred);
  }

  send(datagram: Buffer): void {
    if (!this.#answered) {
      this.#keep(datagram);
      if (this.#isRetryDue()) this.#startOver();
    }
    this.#sendNow(datagram);
  }

  close(): void {
    this.#closed = true;
    this.shut();
    this.#keep(undefined);
  }

  /** The header when the next datagram is to carry one; asking takes it as sent. */
  protected headerDue(): Buffer | undefined {
    if (this.announced && this.headed === 'first') return undefined;
    this.announced = true;
    return this.header;
  }

  /** To be called for the first datagram from the upstream since the flow began, or since `gone`. */
  protected firstAnswer(): void {
    this.#answered = true;
    this.#exhaustedMs = undefined;
    this.#keep(undefined);
    if (this.endpoint !== undefined) this.context.failed.udp.answered(this.endpoint);
    this.#owner.answered();
  }

  /** A send or the socket of the present candidate failed with this errno. */
  protected failed(errno: string | undefined): void {
    if (this.#closed) return;
    const dropped = sendFailure[errno ?? ''];
    if (dropped !== undefined) return count(this.counters, dropped);
    const failure = connectFailure(errno, this.source);
    if (failure === 'connect-refused') count(this.counters, 'icmpRefusals');
    // Nobody was there to read the header, or who has read it is gone.
    this.announced = false;
    if (!this.#answered) return this.#nextCandidate(failure);
    // The program behind went away; what comes next may need another candidate again.
    this.#answered = false;
    this.#owner.gone();
  }

  /** To be called before a socket to the present candidate is opened. */
  protected findWay(upstream: Endpoint): void {
    const way = this.#owner.wayTo(upstream);
    if (way === undefined) return;
    this.source = way.source;
    this.header = way.header;
    this.headed = way.headed;
  }

  #sendNow(datagram: Buffer): void {
    if (this.endpoint === undefined) return;
    this.transmit(datagram, this.endpoint);
    if (this.#lastSentTo !== this.endpoint) this.#tell();
  }

  #tell(): void {
    this.#lastSentTo = this.endpoint;
    if (this.endpoint === undefined || !this.context.udpPorts.has(this.endpoint.port)) return;
    const { local } = this;
    if (local !== undefined) this.#owner.left(local);
  }

  #nextCandidate(failure: ConnectFailure): void {
    const upstream = this.endpoint;
    if (upstream !== undefined && !isOwnTrouble(failure)) this.context.failed.udp.failed(upstream);
    if (this.#index + 1 >= this.#order.length) return this.#askLate(failure);
    this.leave();
    this.#index++;
    if (this.#kept !== undefined) this.#sendNow(this.#kept);
  }

  /** What is refused meanwhile says nothing new. */
  #askLate(failure: ConnectFailure): void {
    const { late } = this.accepted;
    const isToldAlready = this.#exhaustedMs !== undefined && !this.#isRetryDue();
    if (late === undefined || isToldAlready) return this.#exhausted(failure);
    this.stay();
    if (this.#asking) return;
    this.#asking = true;
    void late().then((upstreams) => {
      this.#asking = false;
      if (this.#closed || this.#answered) return;
      const isKnown = (upstream: Endpoint) => this.#known.some((known) => equalEndpoint(known, upstream));
      const fresh = upstreams.filter((upstream) => !isKnown(upstream));
      if (fresh.length === 0) return this.#exhausted(failure);
      this.#known = [...this.#known, ...fresh];
      this.#order = [...this.#order, ...fresh];
      this.#nextCandidate(failure);
    });
  }

  /** Counted once per round through the order: in that round no upstream was reached. */
  #exhausted(failure: ConnectFailure): void {
    if (this.#exhaustedMs === undefined || this.#isRetryDue()) {
      this.#exhaustedMs = this.context.now();
      this.#failure = failure;
      count(this.counters, failureCounter[failure]);
    }
    this.stay();
  }

  #isRetryDue(): boolean {
    return this.#exhaustedMs !== undefined && this.context.now() - this.#exhaustedMs > retryMs;
  }

  #startOver(): void {
    this.#exhaustedMs = undefined;
    if (this.#known.length < 2) return;
    this.leave();
    this.#order = this.context.failed.udp.order(this.#known);
    this.#index = 0;
  }

  /** Could a datagram that was refused be sent to somebody else? */
  protected get isChoosy(): boolean {
    return this.#known.length > 1 || this.accepted.late !== undefined;
  }

  #keep(datagram: Buffer | undefined): void {
    this.context.keptBytes -= this.#kept?.length ?? 0;
    this.#kept = undefined;
    if (datagram === undefined || !this.isChoosy) return;
    if (this.context.keptBytes + datagram.length > this.context.maxKeptBytes) return;
    this.#kept = this.ownCopy(datagram);
    this.context.keptBytes += datagram.length;
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

/**
 * One UDP association: a client's address at one listener, and a connected socket to one upstream.
 *
 *   unanswered ── reply ──► answered ── ICMP refusal ──► unanswered
 *      │ ── ICMP refusal ──► the kept datagram goes to the next candidate
 *      └── idle, evicted, rule changed ──► closed
 *
 * UDP has no handshake, so until the first reply the last datagram is kept (within the engine's budget) and a
 * refusal sends it on. A refusal ends nothing: when no candidate is left the flow stays with the last one, and
 * tries the whole order again for a datagram that comes a second later. The connected socket drops whatever
 * does not come from the upstream. Nothing is allocated per datagram but what node:dgram itself allocates.
 */
import { createSocket, type Socket } from 'node:dgram';
import { type CounterName, type Counters, count } from '../../flow/counters.ts';
import { CLIENT, type CloseReason, type NewFlow, UPSTREAM, type Verdict } from '../../flow/flow.ts';
import { type Endpoint, equalEndpoint, formatHost, isIpv4 } from '../../net/address.ts';
import type { Place } from '../admission.ts';
import { headerBytes } from '../announce.ts';
import type { Plan } from '../engine.ts';
import { type ConnectFailure, connectFailure, failureCounter } from '../race.ts';
import type { PortableContext } from './context.ts';
import { maxQueuedBytes, numericLookup } from './datagrams.ts';

/** After every candidate has refused, the order is tried anew for a datagram this much later. */
const retryMs = 1000;

/** A datagram this recent may still get its answer. */
const busyMs = 1500;

/** Where a flow's answers go and who forgets it. */
export interface UdpFlowOwner {
  reply(datagram: Buffer, flow: UdpFlow): void;
  forget(flow: UdpFlow): void;
}

type Accepted = Exclude<Verdict, { refuse: unknown }>;

export class UdpFlow {
  readonly flow: NewFlow;
  /** The peer as node:dgram takes it, so that no text is made per reply. */
  readonly peerHost: string;
  readonly peerPort: number;
  plan: Plan;
  lastActiveMs: number;
  readonly #context: PortableContext;
  readonly #owner: UdpFlowOwner;
  readonly #place: Place;
  readonly #startedMs = performance.now();
  readonly #bytes: [number, number] = [0, 0];
  #accepted: Accepted;
  #order: readonly Endpoint[];
  #index = 0;
  #socket: Socket | undefined;
  #header: Buffer | undefined;
  #ready = false;
  #announced = false;
  #answered = false;
  /** Who answered last; stays when that upstream goes away. */
  #servedBy: Endpoint | undefined;
  #fellBack = false;
  #kept: Buffer | undefined;
  #exhaustedMs = 0;
  #closed = false;

  constructor(
    context: PortableContext,
    owner: UdpFlowOwner,
    plan: Plan,
    flow: NewFlow,
    place: Place,
    accepted: Accepted,
  ) {
    this.#context = context;
    this.#owner = owner;
    this.plan = plan;
    this.flow = flow;
    this.peerHost = formatHost(flow.peer);
    this.peerPort = flow.peer.port;
    this.lastActiveMs = context.clock.nowMs;
    this.#place = place;
    this.#accepted = accepted;
    this.#order = context.failed.udp.order(accepted.upstreams);
    this.#header = headerBytes(accepted.announce, 'udp');
    context.flows.add(this);
    context.admission.waits(place, this);
    count(this.#counters, 'udpFlows');
    count(this.#counters, 'udpFlowsActive');
  }

  get #counters(): Counters {
    return this.#place.group.counters;
  }

  get #upstream(): Endpoint | undefined {
    return this.#order[this.#index];
  }

  /** The rules changed: goes on when the new verdict still has this upstream, else closes and says false. */
  follow(plan: Plan): boolean {
    const verdict = plan.decide(this.flow);
    const upstream = this.#upstream;
    const stays =
      'upstreams' in verdict && upstream && verdict.upstreams.some((u) => equalEndpoint(u, upstream));
    if (!stays) this.close('rule-changed');
    this.plan = plan;
    return Boolean(stays);
  }

  fromClient(datagram: Buffer): void {
    this.lastActiveMs = this.#context.clock.nowMs;
    this.#bytes[CLIENT] += datagram.length;
    count(this.#counters, 'datagramsFromClient');
    count(this.#counters, 'bytesFromClient', datagram.length);
    if (!this.#answered) {
      this.#keep(datagram);
      if (this.#exhaustedMs !== 0 && performance.now() - this.#exhaustedMs > retryMs) this.#startOver();
    }
    this.#send(datagram);
  }

  /** An exchange is under way: `lastActiveMs` is up to one sweep old. */
  isBusy(nowMs: number): boolean {
    return nowMs - this.lastActiveMs < busyMs;
  }

  checkIdle(nowMs: number): void {
    const { udpMs, udpStreamMs } = this.plan.timeouts;
    const limitMs = this.#answered ? udpStreamMs : udpMs;
    if (limitMs > 0 && nowMs - this.lastActiveMs >= limitMs) this.close('idle');
  }

  evict(): void {
    this.close('evicted');
  }

  abort(reason: CloseReason): void {
    this.close(reason);
  }

  close(reason: CloseReason): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#closeSocket();
    this.#keep(undefined);
    this.#context.flows.delete(this);
    this.#context.admission.waitsNoMore(this.#place, this);
    this.#context.admission.release(this.#place);
    count(this.#counters, 'udpFlowsActive', -1);
    this.#owner.forget(this);
    this.plan.ended({
      rule: this.plan.rule,
      flow: this.flow,
      upstream: this.#servedBy,
      fallback: this.#fellBack,
      bytes: this.#bytes,
      durationMs: performance.now() - this.#startedMs,
      reason,
    });
  }

  #send(datagram: Buffer): void {
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
    const upstream = this.#upstream;
    if (upstream === undefined) return false;
    const type = isIpv4(upstream.address) ? 'udp4' : 'udp6';
    const socket = createSocket({ type, ipv6Only: type === 'udp6', lookup: numericLookup });
    this.#socket = socket;
    this.#ready = false;
    this.#announced = false;
    socket.on('message', this.#fromUpstream);
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

  readonly #fromUpstream = (datagram: Buffer): void => {
    if (!this.#answered) this.#firstAnswer();
    this.lastActiveMs = this.#context.clock.nowMs;
    this.#bytes[UPSTREAM] += datagram.length;
    count(this.#counters, 'datagramsFromUpstream');
    count(this.#counters, 'bytesFromUpstream', datagram.length);
    this.#owner.reply(datagram, this);
  };

  #firstAnswer(): void {
    this.#answered = true;
    this.#exhaustedMs = 0;
    this.#keep(undefined);
    this.#context.admission.waitsNoMore(this.#place, this);
    this.#servedBy = this.#upstream;
    if (this.#servedBy !== undefined) this.#context.failed.udp.answered(this.#servedBy);
    if (this.#fellBack || !this.#isFallback()) return;
    this.#fellBack = true;
    count(this.#counters, 'fallbacks');
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
    if (this.#answered) {
      // The program behind went away; what comes next may need another candidate again.
      this.#answered = false;
      this.#context.admission.waits(this.#place, this);
      return;
    }
    this.#nextCandidate(failure);
  }

  #nextCandidate(failure: ConnectFailure): void {
    const upstream = this.#upstream;
    if (upstream !== undefined && failure !== 'connect-failed') this.#context.failed.udp.failed(upstream);
    if (this.#index + 1 >= this.#order.length) return this.#exhausted(failure);
    this.#closeSocket();
    this.#index++;
    if (this.#kept !== undefined) this.#send(this.#kept);
  }

  /** Counted once per round through the order: in that round no upstream was reached. */
  #exhausted(failure: ConnectFailure): void {
    if (this.#exhaustedMs === 0) {
      this.#exhaustedMs = performance.now();
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

  #isFallback(): boolean {
    const preferred = this.#accepted.upstreams[0];
    const upstream = this.#upstream;
    return preferred !== undefined && upstream !== undefined && !equalEndpoint(upstream, preferred);
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

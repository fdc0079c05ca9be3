/**
 * One UDP association: a client's address at one listener, with the upstream side in udp-upstream.ts. It ends
 * when it is idle, when an unanswered one makes room for a new flow, when the rules no longer have its
 * upstream, or with the listener. Nothing is allocated per datagram but what node:dgram itself allocates.
 */
import { type Counters, count } from '../../flow/counters.ts';
import { CLIENT, type CloseReason, type NewFlow, UPSTREAM } from '../../flow/flow.ts';
import { type Endpoint, equalEndpoint, formatHost } from '../../net/address.ts';
import type { Place } from '../admission.ts';
import { headerBytes, makeUniqueId } from '../announce.ts';
import type { Plan } from '../engine.ts';
import type { PortableContext, SweptFlow } from './context.ts';
import { type Accepted, UdpUpstream, type UdpUpstreamOwner } from './udp-upstream.ts';

/** A datagram this recent may still get its answer. */
const busyMs = 1500;

/** Where a flow's answers go and who forgets it. */
export interface UdpFlowOwner {
  reply(datagram: Buffer, flow: UdpFlow): void;
  forget(flow: UdpFlow): void;
}

export class UdpFlow implements SweptFlow, UdpUpstreamOwner {
  readonly flow: NewFlow;
  /** The peer as node:dgram takes it, so that no text is made per reply. */
  readonly peerHost: string;
  readonly peerPort: number;
  plan: Plan;
  readonly #context: PortableContext;
  readonly #owner: UdpFlowOwner;
  readonly #place: Place;
  readonly #upstream: UdpUpstream;
  readonly #uniqueId: string | undefined;
  readonly #startedMs = performance.now();
  readonly #bytes: [number, number] = [0, 0];
  #lastActiveMs: number;
  /** Who answered last; stays when that upstream goes away. */
  #servedBy: Endpoint | undefined;
  #fellBack = false;
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
    this.#lastActiveMs = context.clock.nowMs;
    this.#place = place;
    this.#uniqueId = makeUniqueId(accepted.announce);
    const header = headerBytes(accepted.announce, 'udp', this.#uniqueId);
    this.#upstream = new UdpUpstream(context, this, accepted, header, this.#counters);
    context.flows.add(this);
    context.admission.waits(place, this);
    count(this.#counters, 'udpFlows');
    count(this.#counters, 'udpFlowsActive');
  }

  get #counters(): Counters {
    return this.#place.group.counters;
  }

  /** The rules changed: goes on when the new verdict still has this upstream, else closes and says false. */
  follow(plan: Plan): boolean {
    const verdict = plan.decide(this.flow);
    const upstream = this.#upstream.endpoint;
    const stays =
      'upstreams' in verdict &&
      upstream !== undefined &&
      verdict.upstreams.some((candidate) => equalEndpoint(candidate, upstream));
    if (!stays) this.#close('rule-changed');
    this.plan = plan;
    return stays;
  }

  fromClient(datagram: Buffer): void {
    this.#lastActiveMs = this.#context.clock.nowMs;
    this.#bytes[CLIENT] += datagram.length;
    count(this.#counters, 'datagramsFromClient');
    count(this.#counters, 'bytesFromClient', datagram.length);
    this.#upstream.send(datagram);
  }

  answer(datagram: Buffer, first: boolean): void {
    if (first) this.#answered();
    this.#lastActiveMs = this.#context.clock.nowMs;
    this.#bytes[UPSTREAM] += datagram.length;
    count(this.#counters, 'datagramsFromUpstream');
    count(this.#counters, 'bytesFromUpstream', datagram.length);
    this.#owner.reply(datagram, this);
  }

  gone(): void {
    this.#context.admission.waits(this.#place, this);
  }

  /** An exchange is under way: `#lastActiveMs` is up to one sweep old. */
  isBusy(nowMs: number): boolean {
    return nowMs - this.#lastActiveMs < busyMs;
  }

  checkIdle(nowMs: number): void {
    const { udpMs, udpStreamMs } = this.plan.timeouts;
    const limitMs = this.#upstream.answered ? udpStreamMs : udpMs;
    if (limitMs > 0 && nowMs - this.#lastActiveMs >= limitMs) this.#close(this.#upstream.failure ?? 'idle');
  }

  evict(): void {
    this.#close('evicted');
  }

  abort(reason: CloseReason): void {
    this.#close(reason);
  }

  #answered(): void {
    this.#context.admission.waitsNoMore(this.#place, this);
    this.#servedBy = this.#upstream.endpoint;
    if (this.#fellBack || !this.#upstream.isFallback) return;
    this.#fellBack = true;
    count(this.#counters, 'fallbacks');
  }

  #close(reason: CloseReason): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#upstream.close();
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
      uniqueId: this.#uniqueId,
      bytes: this.#bytes,
      durationMs: performance.now() - this.#startedMs,
      reason,
    });
  }
}

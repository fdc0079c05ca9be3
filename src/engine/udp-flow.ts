/**
 * The life of one UDP association: a client's address at one listener, with the upstream side in
 * udp-upstream.ts. It ends when it is idle, when an unanswered one makes room for a new flow, when the rules no
 * longer have its upstream, or with the listener. An engine fills in the abstract part.
 */
import { type Counters, count } from '../flow/counters.ts';
import {
  CLIENT,
  type CloseReason,
  type Lease,
  type NewFlow,
  type PlainReason,
  UPSTREAM,
} from '../flow/flow.ts';
import { type Endpoint, equalEndpoint } from '../net/address.ts';
import type { Evictable, Place } from './admission.ts';
import { headerBytes, makeUniqueId } from './announce.ts';
import { plainCounter } from './approach.ts';
import type { EngineContext, SweptFlow } from './context.ts';
import type { Plan } from './engine.ts';
import type { Accepted, UdpUpstream, UdpUpstreamOwner, Way } from './udp-upstream.ts';

/** A datagram this recent may still get its answer. */
const busyMs = 1500;

export abstract class UdpFlow implements SweptFlow, Evictable, UdpUpstreamOwner {
  readonly flow: NewFlow;
  plan: Plan;
  /** The PROXY header for the upstream, when there is to be one. */
  protected readonly header: Buffer | undefined;
  readonly #context: EngineContext;
  readonly #place: Place;
  #uniqueId: string | undefined;
  #source: Endpoint | undefined;
  #plain: PlainReason | undefined;
  #lease: Lease | undefined;
  readonly #startedMs = performance.now();
  readonly #bytes: [number, number] = [0, 0];
  #lastActiveMs: number;
  /** Who answered last; stays when that upstream goes away. */
  #servedBy: Endpoint | undefined;
  #fellBack = false;
  #closed = false;
  /** Of sockets from which something may come back to us: what to call when the flow is over. */
  #forget: (() => void)[] | undefined;

  constructor(context: EngineContext, plan: Plan, flow: NewFlow, place: Place, accepted: Accepted) {
    this.#context = context;
    this.plan = plan;
    this.flow = flow;
    this.#lastActiveMs = context.clock.nowMs;
    this.#place = place;
    this.#uniqueId = makeUniqueId(accepted.announce);
    this.header = headerBytes(accepted.announce, 'udp', this.#uniqueId);
    context.flows.add(this);
    context.admission.waits(place, this);
    count(this.counters, 'udpFlows');
    count(this.counters, 'udpFlowsActive');
  }

  protected abstract readonly upstream: UdpUpstream;
  /** The listener sends this flow nothing more. */
  protected abstract forget(): void;
  /** Payload by the side it came from; what passed through here, unless an engine knows of more. */
  protected bytes(): readonly [number, number] {
    return this.#bytes;
  }
  protected lastActiveMs(): number {
    return this.#lastActiveMs;
  }

  protected get counters(): Counters {
    return this.#place.group.counters;
  }

  /** The rules changed: goes on when the new verdict still has this upstream, else closes and says false. */
  follow(plan: Plan): boolean {
    const verdict = plan.decide(this.flow);
    const upstream = this.upstream.endpoint;
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
    count(this.counters, 'datagramsFromClient');
    count(this.counters, 'bytesFromClient', datagram.length);
    this.upstream.send(datagram);
  }

  protected countAnswer(datagram: Buffer): void {
    this.#lastActiveMs = this.#context.clock.nowMs;
    this.#bytes[UPSTREAM] += datagram.length;
    count(this.counters, 'datagramsFromUpstream');
    count(this.counters, 'bytesFromUpstream', datagram.length);
  }

  wayTo(upstream: Endpoint): Way | undefined {
    const approach = this.plan.approach?.(this.flow, upstream);
    if (approach === undefined) return undefined;
    const { source, announce, lease, plain } = approach;
    // All that one flow leases is its client's.
    if (lease !== undefined && this.#lease === undefined) {
      this.#lease = lease;
      lease.begin();
    }
    if (plain !== undefined && this.#plain === undefined) count(this.counters, plainCounter[plain]);
    this.#plain = plain;
    this.#source = source;
    this.#uniqueId ??= makeUniqueId(announce);
    const header = headerBytes(announce, 'udp', this.#uniqueId);
    return { source, header, headed: announce?.datagrams ?? 'every' };
  }

  answered(): void {
    this.#context.admission.waitsNoMore(this.#place, this);
    if (this.#source !== undefined) this.#source = { ...this.#source, port: this.upstream.local?.port ?? 0 };
    this.#servedBy = this.upstream.endpoint;
    if (this.#fellBack || !this.upstream.isFallback) return;
    this.#fellBack = true;
    count(this.counters, 'fallbacks');
  }

  left(from: Endpoint): void {
    if (this.#closed) return;
    const { udpPorts } = this.#context;
    const passage = { group: this.plan.group, before: udpPorts.passageOf(this.flow.peer) };
    this.#forget ??= [];
    this.#forget.push(udpPorts.leave(from, passage));
  }

  gone(): void {
    this.#context.admission.waits(this.#place, this);
  }

  /** An exchange is under way: the stamp may be up to one sweep old. */
  isBusy(nowMs: number): boolean {
    return nowMs - this.lastActiveMs() < busyMs;
  }

  checkIdle(nowMs: number): void {
    const { udpMs, udpStreamMs } = this.plan.timeouts;
    const limitMs = this.upstream.answered ? udpStreamMs : udpMs;
    const activeMs = this.lastActiveMs();
    if (limitMs > 0 && nowMs - activeMs >= limitMs) this.#close(this.upstream.failure(activeMs) ?? 'idle');
  }

  evict(): void {
    this.#close('evicted');
  }

  abort(reason: CloseReason): void {
    this.#close(reason);
  }

  #close(reason: CloseReason): void {
    if (this.#closed) return;
    this.#closed = true;
    this.upstream.close();
    this.#lease?.end();
    for (const forget of this.#forget ?? []) forget();
    this.#context.flows.delete(this);
    this.#context.admission.waitsNoMore(this.#place, this);
    this.#context.release(this.#place);
    count(this.counters, 'udpFlowsActive', -1);
    this.forget();
    this.plan.ended({
      rule: this.plan.rule,
      flow: this.flow,
      upstream: this.#servedBy,
      source: this.#source,
      plain: this.#plain,
      fallback: this.#fellBack,
      uniqueId: this.#uniqueId,
      bytes: this.bytes(),
      durationMs: performance.now() - this.#startedMs,
      reason,
    });
  }
}

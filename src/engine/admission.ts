/**
 * Who may still come in. One Admission counts an engine's flows against its limit; a RuleGroup counts those of
 * one rule over all its listeners, and per source (IPv4 /32, IPv6 /64), so that no rule and no client starves
 * the others. UDP may hold half of the engine's places: its sources can be forged, TCP's cannot.
 *
 * At a limit TCP is refused. UDP makes room instead by ending the oldest flow that never had an answer, which
 * is what a flood of forged sources leaves behind; a flow that was answered is never ended for a new one.
 * The limits are circles, source within rule within engine. Room is made in the narrowest one that is full:
 * that is room in the wider ones as well, and a client over its own limit costs nobody else a flow.
 *
 * Where threads serve a rule together, its limits and those of its sources hold for all of them; the engine's
 * places are those of its thread, and so are the flows it may end.
 */
import { type Counters, count, makeCounters } from '../flow/counters.ts';
import type { CloseReason, Protocol } from '../flow/flow.ts';
import { type Address, sourceKey } from '../net/address.ts';
import type { SharedFlows } from './shared-flows.ts';

/** Most flows at once, for one rule and for one source (IPv4 /32, IPv6 /64) within it. */
export interface FlowLimits {
  readonly perRule: number;
  readonly perSource: number;
}

/** A UDP flow without an answer so far: what can be ended to make room. */
export interface Evictable {
  evict(): void;
}

interface SourceShare {
  flows: number;
  /** In order of age. */
  readonly unanswered: Set<Evictable>;
}

/** What the listeners of one rule have in common, on one thread. */
export class RuleGroup {
  readonly counters: Counters;
  /** The flows of all threads, when there are several. */
  readonly everywhere: SharedFlows | undefined;
  readonly sources: Map<string, SourceShare> = new Map();
  readonly unanswered: Set<Evictable> = new Set();
  flows = 0;

  constructor(counters: Counters = makeCounters(), everywhere?: SharedFlows) {
    this.counters = counters;
    this.everywhere = everywhere;
  }
}

/** One admitted flow's place; given back once. */
export interface Place {
  readonly group: RuleGroup;
  readonly protocol: Protocol;
  readonly source: string;
}

export type LimitReason = Extract<CloseReason, 'limit-flows' | 'limit-rule' | 'limit-source'>;

/** What UDP gets of so many flows. */
export function mostUdpFlows(maxFlows: number): number {
  return Math.max(1, Math.floor(maxFlows / 2));
}

export class Admission {
  readonly #maxFlows: number;
  readonly #maxUdpFlows: number;
  /** In order of age, with the rule that loses the flow when it is evicted. */
  readonly #unanswered = new Map<Evictable, RuleGroup>();
  readonly #flows: Record<Protocol, number> = { tcp: 0, udp: 0 };

  /** @param maxFlows most flows of the engine at once; UDP gets half of them */
  constructor(maxFlows: number) {
    this.#maxFlows = maxFlows;
    this.#maxUdpFlows = mostUdpFlows(maxFlows);
  }

  get flows(): number {
    return this.#flows.tcp + this.#flows.udp;
  }

  /** No place is left in the engine, whoever asks. */
  get isFull(): boolean {
    return this.flows >= this.#maxFlows;
  }

  /** Takes a place for a flow of this client, or says which limit stands against it. */
  admit(group: RuleGroup, limits: FlowLimits, protocol: Protocol, client: Address): Place | LimitReason {
    const source = sourceKey(client);
    // Before it is asked: of two threads at the last place none may overlook the other.
    group.everywhere?.add(source, 1);
    const reason = this.#blocked(group, limits, protocol, source);
    if (reason !== undefined && !(protocol === 'udp' && this.#makeRoom(reason, group, source))) {
      group.everywhere?.add(source, -1);
      count(group.counters, 'refusedByLimit');
      return reason;
    }
    this.#flows[protocol]++;
    group.flows++;
    const share = group.sources.get(source);
    if (share === undefined) group.sources.set(source, { flows: 1, unanswered: new Set() });
    else share.flows++;
    return { group, protocol, source };
  }

  release(place: Place): void {
    this.#flows[place.protocol]--;
    place.group.flows--;
    place.group.everywhere?.add(place.source, -1);
    const share = place.group.sources.get(place.source);
    if (share !== undefined && --share.flows === 0) place.group.sources.delete(place.source);
  }

  /** From now on this flow may be ended for a new one. */
  waits(place: Place, flow: Evictable): void {
    this.#unanswered.set(flow, place.group);
    place.group.unanswered.add(flow);
    place.group.sources.get(place.source)?.unanswered.add(flow);
  }

  /** The flow was answered, or has ended. */
  waitsNoMore(place: Place, flow: Evictable): void {
    this.#unanswered.delete(flow);
    place.group.unanswered.delete(flow);
    place.group.sources.get(place.source)?.unanswered.delete(flow);
  }

  #blocked(
    group: RuleGroup,
    limits: FlowLimits,
    protocol: Protocol,
    source: string,
  ): LimitReason | undefined {
    const { everywhere } = group;
    const here = group.sources.get(source)?.flows ?? 0;
    // There this flow is counted already.
    const inSource = everywhere === undefined ? here : everywhere.countOf(source) - 1;
    const inRule = everywhere === undefined ? group.flows : everywhere.count - 1;
    if (inSource >= limits.perSource) return 'limit-source';
    if (inRule >= limits.perRule) return 'limit-rule';
    if (this.flows >= this.#maxFlows) return 'limit-flows';
    return protocol === 'udp' && this.#flows.udp >= this.#maxUdpFlows ? 'limit-flows' : undefined;
  }

  /** Evicts within the circle that is full: ending a flow elsewhere would not help. */
  #makeRoom(reason: LimitReason, group: RuleGroup, source: string): boolean {
    const waiting = {
      'limit-flows': this.#unanswered,
      'limit-rule': group.unanswered,
      'limit-source': group.sources.get(source)?.unanswered,
    }[reason];
    const oldest = waiting?.keys().next().value;
    if (oldest === undefined) return false;
    const loser = this.#unanswered.get(oldest) ?? group;
    oldest.evict();
    count(loser.counters, 'evictions');
    return true;
  }
}

/**
 * What stands between a datagram of an unknown sender and a flow of its own, and what a PROXY header in front
 * of a datagram says. Each datagram carries its own header (PROXY protocol, 2.2), so each is a word about its
 * own client.
 */
import { count } from '../flow/counters.ts';
import type { CloseReason, NewFlow } from '../flow/flow.ts';
import { decode } from '../proxy-protocol/codec.ts';
import type { Place } from './admission.ts';
import { refusalCounter } from './approach.ts';
import type { EngineContext } from './context.ts';
import type { Plan } from './engine.ts';
import type { Accepted } from './udp-upstream.ts';

export interface Admitted {
  readonly place: Place;
  readonly accepted: Accepted;
}

/** Undefined for a flow that may not be, after it was counted and recorded. */
export function admitUdp(context: EngineContext, plan: Plan, flow: NewFlow): Admitted | undefined {
  const verdict = plan.decide(flow);
  if ('refuse' in verdict) {
    count(plan.group.counters, refusalCounter[verdict.refuse] ?? 'droppedNoUpstream');
    return refuseUdp(plan, flow, verdict.refuse);
  }
  const place = context.admission.admit(plan.group, plan.limits, 'udp', flow.client.address);
  if (typeof place === 'string') return refuseUdp(plan, flow, place);
  return { place, accepted: verdict };
}

/** A datagram that makes no flow has a record all the same: somebody wants to know why it went nowhere. */
export function refuseUdp(plan: Plan, flow: NewFlow, reason: CloseReason): undefined {
  const nobody = { upstream: undefined, source: undefined, plain: undefined };
  const nothing = { fallback: false, uniqueId: undefined, durationMs: 0 };
  plan.ended({ rule: plan.rule, flow, ...nobody, ...nothing, bytes: [0, 0], reason });
}

/** Who sent a datagram, by its header; undefined when the header names nobody: then its real addresses count. */
export type Announced = Pick<NewFlow, 'client' | 'dialled'> | undefined;

/** The payload behind a datagram's header and whom it names, or what is wrong with the header. */
export function readAnnounced(datagram: Buffer): { payload: Buffer; announced: Announced } | CloseReason {
  const decoded = decode(datagram, 'udp');
  if (decoded.state !== 'done') {
    return decoded.state === 'error' && decoded.error === 'not-proxy' ? 'header-missing' : 'header-invalid';
  }
  const { source, destination } = decoded.header;
  const announced = source && destination ? { client: source, dialled: destination } : undefined;
  return { payload: datagram.subarray(decoded.length), announced };
}

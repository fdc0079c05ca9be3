/**
 * What is counted of a verdict, and of how its upstreams were approached.
 */
import type { CounterName } from '../flow/counters.ts';
import type { PlainReason, RefuseReason } from '../flow/flow.ts';

/** A client that went without its own address, by the reason. */
export const plainCounter = {
  'same-subnet': 'plainSameSubnet',
  'upstream-itself': 'plainUpstreamItself',
  'link-local': 'plainLinkLocal',
  'own-address': 'plainOwnAddress',
} as const satisfies Record<PlainReason, CounterName>;

/** A client that policy turned away; that there is no upstream is counted by protocol, or nowhere. */
export const refusalCounter: Readonly<Record<RefuseReason, CounterName | undefined>> = {
  denied: 'refusedByAccess',
  'not-allowed': 'refusedByAccess',
  'client-not-unicast': 'refusedByAccess',
  'family-mismatch': 'refusedBySource',
  'no-pseudo-address': 'refusedBySource',
  'no-upstream': undefined,
};

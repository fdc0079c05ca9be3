/**
 * Which upstreams a client is offered, in which order. Both answers are made once per rule: an order for IPv4
 * clients and one for IPv6 clients, frozen, since every flow of the rule is given the same one. What failed of
 * late is moved back later, by the engine that saw it fail.
 */
import type { FamilyMode } from '../config/rules.ts';
import { type Endpoint, type Family, familyOf } from '../net/address.ts';

export type Route = (client: Family) => readonly Endpoint[];

/** May clients of one family be sent to upstreams of another, or the same one? */
export type Offer = (client: Family, upstream: Family) => boolean;

export function compileRoute(
  mode: FamilyMode,
  upstreams: readonly Endpoint[],
  offers: Offer = () => true,
): Route {
  const orderFor = (client: Family) =>
    Object.freeze(ordered(mode, client, upstreams).filter((to) => offers(client, familyOf(to.address))));
  const forIpv4 = orderFor(4);
  const forIpv6 = orderFor(6);
  return (client) => (client === 4 ? forIpv4 : forIpv6);
}

function ordered(mode: FamilyMode, client: Family, upstreams: readonly Endpoint[]): readonly Endpoint[] {
  const of = (family: Family) => upstreams.filter((upstream) => familyOf(upstream.address) === family);
  if (mode === 'v4') return of(4);
  if (mode === 'v6') return of(6);
  const first = mode === 'same' ? client : mode === 'prefer-v4' ? 4 : 6;
  return [...of(first), ...of(first === 4 ? 6 : 4)];
}

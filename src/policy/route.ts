/**
 * Which upstreams a client is offered, in which order. Both answers are made once per rule: an order for IPv4
 * clients and one for IPv6 clients, frozen, since every flow of the rule is given the same one. What failed of
 * late is moved back later, by the engine that saw it fail.
 */
import type { FamilyMode } from '../config/rules.ts';
import { type Endpoint, type Family, familyOf } from '../net/address.ts';

export type Route = (client: Family) => readonly Endpoint[];

export function compileRoute(mode: FamilyMode, upstreams: readonly Endpoint[]): Route {
  const forIpv4 = Object.freeze(ordered(mode, 4, upstreams));
  const forIpv6 = Object.freeze(ordered(mode, 6, upstreams));
  return (client) => (client === 4 ? forIpv4 : forIpv6);
}

function ordered(mode: FamilyMode, client: Family, upstreams: readonly Endpoint[]): readonly Endpoint[] {
  const of = (family: Family) => upstreams.filter((upstream) => familyOf(upstream.address) === family);
  if (mode === 'v4') return of(4);
  if (mode === 'v6') return of(6);
  const first = mode === 'same' ? client : mode === 'prefer-v4' ? 4 : 6;
  return [...of(first), ...of(first === 4 ? 6 : 4)];
}

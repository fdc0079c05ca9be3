/**
 * Upstreams behind an interface: a bridge of containers, a cable, a network. Their answers to a client's address
 * would be passed on to the client. nft marks those for which this host has a transparent socket, and a rule for
 * that interface and mark leads them to a table in which every address is this host's.
 */
import { formatMark } from '../../config/transparent-options.ts';
import { type Family, familyOf } from '../../net/address.ts';
import type { Upstream } from '../needs.ts';
import { allLocal, emptyPlan, type Names, order, type Plan, type PolicyRule } from '../plan.ts';
import type { WayOf } from '../way.ts';

interface Passing {
  readonly name: string;
  readonly families: readonly Family[];
}

/** @param ipv6 false where the host has none, and rules for it could not be made */
export function interfacePlan(
  transparent: readonly Upstream[],
  wayOf: WayOf,
  names: Names,
  ipv6: boolean,
): Plan {
  const passing = interfacesOf(transparent, wayOf, names.interfaces, ipv6);
  if (passing.length === 0) return emptyPlan;
  const interfaces = passing.map(({ name }) => name);
  const families = new Set(passing.flatMap((one) => one.families));
  return {
    routes: [...families].sort().map((family) => allLocal(family, names.routeTable)),
    rules: passing.flatMap((one) => interfaceRules(one, names)),
    marking: {
      interfaces,
      why: `mark answers from ${interfaces.join(', ')} for which there is a transparent socket`,
    },
    remarks: [],
  };
}

function interfaceRules(
  { name, families }: Passing,
  { mark, priority, routeTable }: Names,
): readonly PolicyRule[] {
  return families.map((family) => ({
    family,
    priority: priority + order.interface,
    words: `iif ${name} fwmark ${formatMark(mark)} lookup ${routeTable}`,
    why: `what comes from ${name} with the mark is for a socket of this host`,
  }));
}

/** Those that lead to upstreams, each with the families of these; and those an operator has named, with both and always. */
function interfacesOf(
  transparent: readonly Upstream[],
  wayOf: WayOf,
  named: readonly string[],
  ipv6: boolean,
): readonly Passing[] {
  const found = new Map<string, Set<Family>>();
  const add = (name: string, family: Family) => found.set(name, (found.get(name) ?? new Set()).add(family));
  for (const upstream of transparent) {
    const way = wayOf(upstream);
    if (way.kind === 'interface') add(way.name, familyOf(upstream.address));
  }
  for (const name of named) for (const family of ipv6 ? ([4, 6] as const) : ([4] as const)) add(name, family);
  return [...found.keys()].sort().map((name) => ({ name, families: [...(found.get(name) ?? [])].sort() }));
}

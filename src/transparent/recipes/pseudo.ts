/**
 * Pseudo addresses: a range nobody else has, made this host's own by one route for each family of upstreams. A
 * socket may then have any of them without a privilege, and answers find back without a mark or a rule.
 */
import type { PseudoConfig } from '../../config/load.ts';
import { type Family, familyOf, isLoopback } from '../../net/address.ts';
import { formatCidr } from '../../net/cidr.ts';
import type { Upstream } from '../needs.ts';
import { emptyPlan, type Names, type Plan, type Route } from '../plan.ts';

export function pseudoPlan(
  upstreams: readonly Upstream[],
  { priority }: Names,
  ranges: Pick<PseudoConfig, 'v4' | 'v6'>,
): Plan {
  const families = [...new Set(upstreams.map(({ address }) => familyOf(address)))].sort();
  const routes = families.map((family): Route => {
    const range = formatCidr(family === 4 ? ranges.v4 : ranges.v6);
    const source = hasLoopbackUdp(upstreams, family) ? ` src ${family === 4 ? '127.0.0.1' : '::1'}` : '';
    // The metric tells it from a route to the same range that somebody else has made.
    const words = `local ${range} dev lo table local metric ${priority}${source}`;
    return { family, words, why: 'pseudo addresses of clients are addresses of this host' };
  });
  return { ...emptyPlan, routes };
}

/** Its program, on a wildcard address, would otherwise answer from the very address it answers to. */
function hasLoopbackUdp(upstreams: readonly Upstream[], family: Family): boolean {
  return upstreams.some(
    ({ address, protocol }) => familyOf(address) === family && protocol === 'udp' && isLoopback(address),
  );
}

/**
 * Clients whose address an upstream must not see as its peer's, because its answers would not come back here:
 *
 *   same-subnet      the upstream answers a neighbour directly, and a neighbour of ours is one of its own
 *   upstream-itself  it would answer itself
 *   link-local       the address means another host, or nobody, on the upstream's link
 *   own-address      a program of this host: what it is answered is delivered without any rule, or is looped back
 *
 * Whether an upstream behind a router of its own has the client for a neighbour cannot be known from here.
 */
import type { PlainReason } from '../flow/flow.ts';
import {
  type Address,
  type Endpoint,
  equalAddress,
  isIpv4,
  isLinkLocal,
  isLoopback,
} from '../net/address.ts';
import { compileCidrs } from '../net/cidr.ts';
import type { HostNetworks } from './surroundings.ts';

/** Undefined when the upstream may see this client, which is of its family. */
export type ObstacleTo = (client: Endpoint, upstream: Endpoint) => PlainReason | undefined;

/** @param upstreams those that are known */
export function compileObstacles(
  upstreams: readonly Endpoint[],
  { own, networks }: HostNetworks,
): ObstacleTo {
  const isOwn = compileCidrs(own.map((address) => ({ address, bits: 128 })));
  const neighboursOf = ({ address }: Endpoint) => {
    // Answers of a program on this host are routed here, wherever they are for.
    const shared = isOwn(address) ? [] : networks.filter((network) => compileCidrs([network])(address));
    return compileCidrs(shared);
  };
  const known = new Map(upstreams.map((upstream) => [upstream, neighboursOf(upstream)]));
  return ({ address, zone }, upstream) => {
    if (zone !== '' || isLinkLocal(address) || isIpv4LinkLocal(address)) return 'link-local';
    if (equalAddress(address, upstream.address)) return 'upstream-itself';
    if (isLoopback(address) || isOwn(address)) return 'own-address';
    // One that was found while the flow waited is in no map.
    const isNeighbour = known.get(upstream) ?? neighboursOf(upstream);
    return isNeighbour(address) ? 'same-subnet' : undefined;
  };
}

/** 169.254.0.0/16 (RFC 3927): of one link, like IPv6's. */
function isIpv4LinkLocal(address: Address): boolean {
  return isIpv4(address) && address[12] === 169 && address[13] === 254;
}

/** What an operator has to know of a plan: what is left out, and whom it concerns beside dualport. Pure. */
import type { Config } from '../config/load.ts';
import { isIpv4, isLoopback } from '../net/address.ts';
import { formatUpstream, hostOf, type Needs, type Upstream } from './needs.ts';
import type { Way, WayOf } from './way.ts';

/** @param linkLocal interfaces with a link-local address */
export function remarksOn(
  { transparent, pseudo }: Needs,
  wayOf: WayOf,
  linkLocal: ReadonlySet<string>,
): readonly string[] {
  const remarks = [
    ...transparent.flatMap((upstream) => remarkOn(upstream, wayOf(upstream)) ?? []),
    ...[...transparent, ...pseudo].flatMap(
      (upstream) => neighbourRemark(upstream, wayOf(upstream), linkLocal) ?? [],
    ),
    ...pseudo.flatMap((upstream) => pseudoRemark(upstream, wayOf(upstream)) ?? []),
  ];
  return [...new Set(remarks)];
}

/** Nobody can be reached there, so there is no reason not to begin: a container has ::1 among its targets by default. */
export function familyRemarks({ transparent, pseudo }: Needs, ipv6: boolean): readonly string[] {
  if (ipv6 || [...transparent, ...pseudo].every(({ address }) => isIpv4(address))) return [];
  return [
    'IPv6 is switched off here (sysctl net.ipv6.conf.lo.disable_ipv6), so nothing is set up for upstreams of IPv6',
  ];
}

function remarkOn(upstream: Upstream, way: Way): string | undefined {
  const host = hostOf(upstream);
  if (way.kind === 'none') {
    return (
      `no way leads to ${host} (${way.reason}), so nothing is set up for it: name its interface with ` +
      '--transparent-interface, or run this again when it is there'
    );
  }
  if (way.kind === 'local') return localRemark(upstream);
  return way.gateway === undefined ? undefined : gatewayRemark(host, way.gateway);
}

/** Neighbour solicitations for a packet that is from another host take a link-local address (ndisc_solicit). */
function neighbourRemark(
  { address }: Upstream,
  way: Way,
  linkLocal: ReadonlySet<string>,
): string | undefined {
  if (isIpv4(address) || way.kind !== 'interface' || linkLocal.has(way.name)) return undefined;
  return (
    `${way.name} has no link-local IPv6 address, and without one this host cannot ask for its neighbours on behalf of ` +
    `a client: now and then connections fail; give it one, as with ip -6 address add fe80::1/64 dev ${way.name}`
  );
}

function gatewayRemark(host: string, gateway: string): string {
  return (
    `${host} is behind the gateway ${gateway}: what it answers to clients has to come back through this host, which ` +
    'only the routes over there can see to'
  );
}

function localRemark(upstream: Upstream): string | undefined {
  const { address, protocol, port } = upstream;
  const loopback = isIpv4(address) ? '127.0.0.1' : '::1';
  if (!isLoopback(address)) {
    return (
      `${formatUpstream(upstream)} is on this host: whoever else calls it there gets no answer while this stands; ` +
      `give ${loopback} as upstream, which has no such effect`
    );
  }
  if (protocol === 'tcp') return undefined;
  return (
    `a program on this host that has UDP port ${port} on a wildcard address answers nobody but dualport while this ` +
    `stands; one on ${loopback} is not concerned`
  );
}

function pseudoRemark(upstream: Upstream, way: Way): string | undefined {
  const { address, protocol } = upstream;
  if (way.kind === 'interface' && way.gateway !== undefined) {
    return (
      `${hostOf(upstream)} is behind the gateway ${way.gateway}: the range of pseudo addresses has to be routed to this ` +
      'host over there'
    );
  }
  if (way.kind !== 'local' || protocol !== 'udp' || isLoopback(address)) return undefined;
  return (
    `${formatUpstream(upstream)} is on this host: a program on a wildcard address does not answer pseudo addresses ` +
    `there; give ${isIpv4(address) ? '127.0.0.1' : '::1'} as upstream`
  );
}

/** node:net and node:dgram have no IPV6_FREEBIND; what is for the whole host is left to its operator. */
export function engineRemarks({ pseudo }: Needs, engine: Config['engine']): readonly string[] {
  if (engine !== 'portable' || pseudo.every(({ address }) => isIpv4(address))) return [];
  return [
    'sockets of the portable engine take IPv6 pseudo addresses only with sysctl -w net.ipv6.ip_nonlocal_bind=1',
  ];
}

/**
 * What the rules in force need of the kernel: upstreams whose answers go to addresses of clients (source
 * transparent) and have to be brought back, and upstreams before which clients have pseudo addresses, which
 * have to be dualport's own. Pure.
 */
import type { Rule } from '../config/rules.ts';
import {
  type Address,
  type Endpoint,
  formatEndpoint,
  formatHost,
  isIpv4,
  isUnspecified,
  loopbackIpv4,
  loopbackIpv6,
} from '../net/address.ts';

/** A rule, and where its targets are now. */
export interface RunningRule {
  readonly rule: Rule;
  readonly upstreams: readonly Endpoint[];
}

/** Where a program listens. */
export interface Upstream extends Endpoint {
  readonly protocol: 'tcp' | 'udp';
}

export interface Needs {
  readonly transparent: readonly Upstream[];
  readonly pseudo: readonly Upstream[];
}

export function needsOf(rules: readonly RunningRule[]): Needs {
  const transparent = rules.filter(({ rule }) => rule.source === 'transparent');
  return {
    transparent: distinct(transparent.flatMap(upstreamsOf)),
    pseudo: distinct(rules.filter(({ rule }) => mayBePseudo(rule)).flatMap(upstreamsOf)),
  };
}

/** What is left of them where no packet of IPv6 goes anywhere. */
export function onIpv4({ transparent, pseudo }: Needs): Needs {
  const ofIpv4 = ({ address }: Upstream) => isIpv4(address);
  return { transparent: transparent.filter(ofIpv4), pseudo: pseudo.filter(ofIpv4) };
}

/** A transparent rule has a pseudo address for the clients of the other family. */
function mayBePseudo({ source, mismatch }: Rule): boolean {
  if (source !== 'transparent') return source === 'pseudo';
  return mismatch === 'pseudo' || mismatch === 'auto';
}

function upstreamsOf({ rule, upstreams }: RunningRule): readonly Upstream[] {
  const { protocol } = rule.port;
  return upstreams
    .filter(({ address }) => isUsed(address, rule.family))
    .map((endpoint) => ({ ...endpoint, address: specific(endpoint.address), protocol }));
}

function isUsed(address: Address, family: Rule['family']): boolean {
  if (family === 'v4') return isIpv4(address);
  return family !== 'v6' || !isIpv4(address);
}

/** A connection to 0.0.0.0 or :: is one to this host. */
function specific(address: Address): Address {
  if (!isUnspecified(address)) return address;
  return isIpv4(address) ? loopbackIpv4 : loopbackIpv6;
}

/** `172.17.0.2:53/udp`. */
export function formatUpstream(upstream: Upstream): string {
  return `${formatEndpoint(upstream)}/${upstream.protocol}`;
}

/** Of an upstream's host; the ways to hosts are found by it. */
export function hostOf(upstream: Upstream): string {
  return formatHost(upstream);
}

function distinct(upstreams: readonly Upstream[]): readonly Upstream[] {
  const byText = new Map(upstreams.map((upstream) => [formatUpstream(upstream), upstream]));
  return [...byText.values()];
}

/**
 * Rules that would connect to dualport itself, round and round until no socket is left. The configuration alone
 * shows a loopback upstream, or one that is the very address a listener is bound to; the host, one that is another
 * address of its own. Names other than localhost are looked up later and are not judged.
 */
import { DualportError } from '../errors.ts';
import {
  type Address,
  equalAddress,
  isIpv4,
  isLoopback,
  isUnspecified,
  loopbackIpv4,
  loopbackIpv6,
} from '../net/address.ts';
import { ListenerIndex } from './listener-index.ts';
import { cite, knownPort, type Publication } from './port-conflicts.ts';
import type { BindHost } from './port-spec.ts';
import type { Rule } from './rules.ts';
import { formatUpstream, type Target } from './target.ts';

const loopbacks: readonly BindHost[] = [loopbackIpv4, loopbackIpv6].map((address) => ({ address, zone: '' }));

/** The sidecar case: the program is on this host, and nobody wrote where. */
export const defaultTargets: readonly Target[] = loopbacks.map((host) => ({ kind: 'address', ...host }));

/**
 * The upstreams of a rule. Of those written, each must lead away from dualport; of the default ones, those
 * that do not are left out, so that `-p '[::]:8080:8080'` serves a program on 0.0.0.0:8080.
 *
 * @throws DualportError SELF_CONNECT
 */
export function upstreamsOf(
  publication: Publication,
  written: readonly Target[] | undefined,
  index: ListenerIndex<Publication>,
): readonly Target[] {
  if (written === undefined) return defaultUpstreams(publication, index);
  for (const target of written) {
    const listener = listenerAt(publication, target, index);
    if (listener === undefined) continue;
    const whose = listener === publication ? 'its own listener' : `the listener of ${cite(listener)}`;
    throw connectsToItself(cite(publication), whose, publication, target);
  }
  return written;
}

/**
 * What only the host shows: upstreams that are addresses of its own, at a port that a rule has on all of them.
 *
 * @param own the addresses of its interfaces
 * @throws DualportError SELF_CONNECT
 */
export function refuseOwnAddresses(rules: readonly Rule[], own: readonly Address[]): void {
  const index = new ListenerIndex<Rule>();
  for (const rule of rules) {
    const port = knownPort(rule.port);
    if (port !== undefined) index.add(rule.port.protocol, port, rule.port.host, rule);
  }
  for (const rule of rules) {
    const { protocol, containerPort } = rule.port;
    for (const to of rule.to) {
      if (to.kind === 'name') continue;
      const listener = index.wildcard(protocol, containerPort, to.address);
      if (listener === undefined || !own.some((address) => equalAddress(address, to.address))) continue;
      const whose = listener === rule ? 'its own listener' : `the listener of "${listener.name}"`;
      throw connectsToItself(`"${rule.name}"`, whose, rule, to, ', an address of this host');
    }
  }
}

function defaultUpstreams(publication: Publication, index: ListenerIndex<Publication>): readonly Target[] {
  const left = defaultTargets.filter((target) => listenerAt(publication, target, index) === undefined);
  if (left.length === 0) throw nothingLeft(publication);
  return left;
}

/** The listener a connection to this target would arrive at, as far as can be told. */
function listenerAt(
  publication: Publication,
  target: Target,
  index: ListenerIndex<Publication>,
): Publication | undefined {
  const { protocol, containerPort } = publication.port;
  for (const host of hostsOf(target)) {
    const listener =
      index.exact(protocol, containerPort, host) ??
      (isLoopback(host.address) ? index.wildcard(protocol, containerPort, host.address) : undefined);
    if (listener !== undefined) return listener;
  }
  return undefined;
}

/** Connecting to an unspecified address is connecting to loopback; localhost is both loopbacks (RFC 6761). */
function hostsOf(target: Target): readonly BindHost[] {
  if (target.kind === 'name') return /^(?:.+\.)?localhost\.?$/.test(target.name) ? loopbacks : [];
  if (isUnspecified(target.address)) return [{ address: loopbackOf(target.address), zone: '' }];
  return [target];
}

function loopbackOf(address: Address): Address {
  return isIpv4(address) ? loopbackIpv4 : loopbackIpv6;
}

function connectsToItself(
  who: string,
  whose: string,
  { port: { protocol, containerPort } }: Pick<Publication, 'port'>,
  target: Target,
  remark: string = '',
): DualportError {
  const upstream = `${protocol} ${formatUpstream(target, containerPort)}${remark}`;
  return new DualportError(
    'SELF_CONNECT',
    `${who} would connect to ${whose} at ${upstream}; name the address the program listens on ` +
      'with --to (the file key to), or publish another host port',
  );
}

function nothingLeft(publication: Publication): DualportError {
  return new DualportError(
    'SELF_CONNECT',
    `${cite(publication)} would connect to dualport itself: without --to (the file key to) the program is looked ` +
      `for on this host, where dualport listens on port ${publication.port.containerPort} of both families; ` +
      'say where the program is, publish another host port, or publish on the family the program is not on',
  );
}

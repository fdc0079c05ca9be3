/**
 * Upstreams on this host, as a sidecar's program is. The route of an answer is chosen before a packet is there to
 * be marked, so the rules go by what is known by then: the answer's source, or no source and a UDP port.
 */
import {
  type Address,
  type Family,
  familyOf,
  formatAddress,
  formatHost,
  isLoopback,
} from '../../net/address.ts';
import type { Upstream } from '../needs.ts';
import {
  allLocal,
  emptyPlan,
  merged,
  mostSources,
  type Names,
  order,
  type Plan,
  type PolicyRule,
} from '../plan.ts';

/** @param local those of this host only */
export function localPlan(local: readonly Upstream[], names: Names): Plan {
  return merged([sourcePlan(local, names), portPlan(local, names)]);
}

function sourcePlan(local: readonly Upstream[], names: Names): Plan {
  const loopback = local.filter(({ address }) => isLoopback(address));
  const others = byAddress(local.filter(({ address }) => !isLoopback(address)));
  const families = familiesOf(local);
  return {
    ...emptyPlan,
    routes: families.map((family) => allLocal(family, names.routeTable)),
    rules: [
      ...familiesOf(loopback).map((family) => loopbackRule(family, names)),
      ...others.flatMap((group) => portRules(group, names)),
    ],
  };
}

/** Nothing with this source goes to another host by right, so no port has to be told. */
function loopbackRule(family: Family, { priority, routeTable }: Names): PolicyRule {
  return {
    family,
    priority: priority + order.source,
    words: `from ${family === 4 ? '127.0.0.0/8' : '::1/128'} iif lo lookup ${routeTable}`,
    why: 'answers of programs on loopback stay on this host',
  };
}

function portRules(group: Group, { priority, routeTable }: Names): readonly PolicyRule[] {
  const { address } = group[0];
  return portRanges(group).map(({ protocol, ports }) => ({
    family: familyOf(address),
    priority: priority + order.source,
    words: `from ${hostPrefix(address)} iif lo ipproto ${protocol} sport ${ports} lookup ${routeTable}`,
    why: `answers of the program on ${formatAddress(address)} stay on this host`,
  }));
}

/**
 * Answers of UDP programs on a wildcard address: they have no source yet when their route is chosen, so the port
 * has to tell them, and the route gives them the source that dualport's socket waits for.
 *
 * To IPv4's rules a source that is not chosen yet is 0.0.0.0. IPv6's cannot ask for that; but a source that is
 * chosen is in ::/1 or in 8000::/1, and with these the rules by port are jumped over. So nobody but a program on
 * the wildcard address is concerned, not even dualport, which may have the same port on another address.
 */
function portPlan(local: readonly Upstream[], names: Names): Plan {
  const groups = byAddress(onePerPort(local.filter(({ protocol }) => protocol === 'udp')));
  const plans = groups
    .slice(0, mostSources)
    .map((group, i) => wildcardPlan(group, names.routeTable + 1 + i, names));
  const left = groups.slice(mostSources).map(([{ address }]) => formatAddress(address));
  const remarks = left.length > 0 ? [tooManySources(left)] : [];
  const plan = merged([...plans, { ...emptyPlan, remarks }]);
  if (!plan.rules.some(({ family }) => family === 6)) return plan;
  return { ...plan, rules: [...skippingChosenSources(names), ...plan.rules] };
}

/** A port has one answer: loopback's where that wants it, else of the first address. */
function onePerPort(upstreams: readonly Upstream[]): readonly Upstream[] {
  const taken = new Map<string, Upstream>();
  for (const upstream of byAddress(upstreams).flat()) {
    const key = `${familyOf(upstream.address)} ${upstream.port}`;
    if (!taken.has(key)) taken.set(key, upstream);
  }
  return [...taken.values()];
}

function tooManySources(hosts: readonly string[]): string {
  return (
    `UDP programs on wildcard addresses are reached by at most ${mostSources} addresses of this host, and not by ` +
    `${hosts.join(', ')}: have them listen there, or give 127.0.0.1 or ::1 as upstream`
  );
}

function wildcardPlan(group: Group, table: number, { priority }: Names): Plan {
  const [{ address }] = group;
  const family = familyOf(address);
  const rules = portRanges(group).map(({ ports }) => ({
    family,
    priority: priority + order.port,
    words: `${family === 4 ? 'from 0.0.0.0/32 ' : ''}iif lo ipproto udp sport ${ports} lookup ${table}`,
    why: `answers of a UDP program on the wildcard address, without a source yet, get ${formatAddress(address)}`,
  }));
  return { ...emptyPlan, routes: [allLocal(family, table, address)], rules };
}

/** The target of the jump first, and what is jumped over last: a jump to nowhere is none. */
function skippingChosenSources({ priority }: Names): readonly PolicyRule[] {
  const end = priority + order.end;
  const rule = (at: number, words: string, why: string): PolicyRule => ({
    family: 6,
    priority: at,
    words,
    why,
  });
  const skip = (half: string) =>
    rule(
      priority + order.skip,
      `from ${half} iif lo ipproto udp goto ${end}`,
      'IPv6 datagrams with a source are not meant by the rules by port',
    );
  return [
    rule(end, 'iif lo nop', 'IPv6 datagrams with a source go on here, behind the rules by port'),
    skip('::/1'),
    skip('8000::/1'),
  ];
}

function familiesOf(upstreams: readonly Upstream[]): readonly Family[] {
  return [...new Set(upstreams.map(({ address }) => familyOf(address)))].sort();
}

function hostPrefix(address: Address): string {
  return `${formatAddress(address)}/${familyOf(address) === 4 ? 32 : 128}`;
}

type Group = readonly [Upstream, ...Upstream[]];

/** Loopback first: a port that several want is most likely meant there. */
function byAddress(upstreams: readonly Upstream[]): readonly Group[] {
  const groups = new Map<string, [Upstream, ...Upstream[]]>();
  for (const upstream of upstreams) {
    const group = groups.get(formatHost(upstream));
    if (group === undefined) groups.set(formatHost(upstream), [upstream]);
    else group.push(upstream);
  }
  return [...groups.values()].sort(
    ([a], [b]) => Number(isLoopback(b.address)) - Number(isLoopback(a.address)),
  );
}

/** Ports in a row are one range, so that a published range is one rule. */
function portRanges(
  upstreams: readonly Upstream[],
): readonly { readonly protocol: string; readonly ports: string }[] {
  return (['tcp', 'udp'] as const).flatMap((protocol) => {
    const ports = upstreams.filter((upstream) => upstream.protocol === protocol).map(({ port }) => port);
    return inRows([...new Set(ports)].sort((a, b) => a - b)).map(([first, last]) => ({
      protocol,
      ports: first === last ? `${first}` : `${first}-${last}`,
    }));
  });
}

function inRows(ports: readonly number[]): readonly (readonly [number, number])[] {
  const rows: [number, number][] = [];
  for (const port of ports) {
    const row = rows.at(-1);
    if (row !== undefined && row[1] === port - 1) row[1] = port;
    else rows.push([port, port]);
  }
  return rows;
}

/**
 * Binds one rule: a socket per address family, all on the same port, or none at all. Where the rule leaves a
 * choice of ports, the first that is free on every address is taken.
 */
import { boundHosts, ListenerIndex } from '../config/listener-index.ts';
import { formatBindHost } from '../config/port-spec.ts';
import type { Rule } from '../config/rules.ts';
import type { Engine, Listener } from '../engine/engine.ts';
import { DualportError, errnoOf, listenError, noIpv6Error } from '../errors.ts';
import { type Endpoint, familyOf, isLoopback } from '../net/address.ts';
import type { HostFacts } from './host.ts';
import type { RulePlan } from './plan.ts';

/** How often a port chosen by the kernel for one family may turn out to be taken in the other. */
const ephemeralTries = 16;

/** @throws DualportError with advice; nothing is bound then */
export async function bindRule(
  engine: Engine<RulePlan>,
  rule: Rule,
  plan: RulePlan,
  host: HostFacts,
): Promise<readonly Listener<RulePlan>[]> {
  const hosts = hostsToBind(rule, host);
  const ports = portsToTry(rule);
  for (const [i, port] of ports.entries()) {
    const bound = await bindAll(engine, rule, plan, hosts, port);
    if (Array.isArray(bound)) return bound;
    const more = i + 1 < ports.length;
    if (!more || errnoOf(bound.error) !== 'EADDRINUSE') {
      throw listenError(bound.error, rule.port.protocol, addressText(bound.at), host.lowPort);
    }
  }
  throw new Error('a rule without ports');
}

export function isInUse(error: unknown): error is DualportError {
  return error instanceof DualportError && error.code === 'ADDRESS_IN_USE';
}

/**
 * Why a rule could not be bound, where one that runs has its port: nobody is to look for another program then.
 *
 * @returns the error itself when it is about something else
 */
export function namingHolder(
  error: unknown,
  { port: { protocol, host, hostPorts } }: Rule,
  running: readonly { readonly rule: Rule; readonly listeners: readonly Listener[] }[],
): unknown {
  if (!isInUse(error) || hostPorts === undefined) return error;
  const index = new ListenerIndex<string>();
  for (const { rule, listeners } of running) {
    for (const { local } of listeners) index.add(rule.port.protocol, local.port, local, rule.name);
  }
  // Of a range the last was tried last.
  const holder = index.overlapping(protocol, hostPorts.last, host);
  if (holder === undefined) return error;
  return new DualportError(
    'ADDRESS_IN_USE',
    `cannot listen on ${protocol} port ${hostPorts.last}: "${holder}" of this dualport has it, and keeps it while it ` +
      'runs; publish another port, or restart dualport',
    { cause: error },
  );
}

function hostsToBind(rule: Rule, host: HostFacts): readonly Omit<Endpoint, 'port'>[] {
  const hosts = boundHosts(rule.port.host);
  if (host.ipv6) return hosts;
  const ipv4 = hosts.filter(({ address }) => familyOf(address) === 4);
  const [explicit] = hosts;
  if (ipv4.length === 0 && explicit)
    throw noIpv6Error(
      rule.port.protocol,
      addressText({ ...explicit, port: rule.port.hostPorts?.first ?? 0 }),
    );
  return ipv4;
}

function portsToTry(rule: Rule): readonly number[] {
  const { hostPorts, containerPort } = rule.port;
  if (hostPorts === undefined) return Array.from({ length: ephemeralTries }, () => 0);
  if (hostPorts.first === hostPorts.last) return [hostPorts.first];
  const ports = Array.from({ length: hostPorts.last - hostPorts.first + 1 }, (_, i) => hostPorts.first + i);
  // Of a choice, not the one on which the rule would connect to itself.
  const local = rule.to.some((to) => to.kind === 'address' && isLoopback(to.address));
  return ports.length > 1 && local ? ports.filter((port) => port !== containerPort) : ports;
}

async function bindAll(
  engine: Engine<RulePlan>,
  rule: Rule,
  plan: RulePlan,
  hosts: readonly Omit<Endpoint, 'port'>[],
  port: number,
): Promise<Listener<RulePlan>[] | { error: unknown; at: Endpoint }> {
  const bound: Listener<RulePlan>[] = [];
  for (const host of hosts) {
    // The port that the kernel chose for the first address is the one for all of them.
    const at = { ...host, port: bound[0]?.local.port ?? port };
    try {
      bound.push(await engine.listen(rule.port.protocol, at, plan));
    } catch (error) {
      await Promise.all(bound.map((listener) => listener.close()));
      return { error, at };
    }
  }
  return bound;
}

function addressText(at: Endpoint): string {
  return `${formatBindHost(at)}:${at.port}`;
}

/**
 * The bounds of a label: host ports and addresses the operator has named, and no others. What is asked for
 * within them comes out as ports to publish; anything else as a sentence that says what is allowed.
 */
import type { AdminAddress } from '../config/admin-address.ts';
import type { LabelPolicy } from '../config/docker-options.ts';
import {
  type BindHost,
  formatBindHost,
  formatPortRange,
  formatPortSpec,
  type PortRange,
  type PublishedPort,
} from '../config/port-spec.ts';
import { equalAddress, isIpv4, isUnspecified } from '../net/address.ts';

/** @returns the ports to publish, one for each address, or why there are none */
export function withinBounds(
  port: PublishedPort,
  policy: LabelPolicy,
  admin: AdminAddress | undefined,
): readonly PublishedPort[] | string {
  const refusal = refusedPorts(port, policy, admin) ?? refusedHost(port, policy);
  if (refusal !== undefined) return refusal;
  if (port.host !== undefined) return [port];
  return hostsWithoutChoice(policy.bind).map((host) => ({ ...port, host }));
}

function refusedPorts(
  port: PublishedPort,
  { ports }: LabelPolicy,
  admin: AdminAddress | undefined,
): string | undefined {
  const allowed = `allowed: ${ports.map(formatPortRange).join(', ')} (--docker-ports)`;
  if (port.hostPorts === undefined) {
    return `${formatPortSpec(port)} names no host port, and none is chosen for a container; ${allowed}`;
  }
  if (!covers(ports, port.hostPorts)) return `found host port ${formatPortRange(port.hostPorts)}; ${allowed}`;
  const { first, last } = port.hostPorts;
  const isAdmin = admin?.kind === 'tcp' && admin.endpoints.some((at) => first <= at.port && at.port <= last);
  return isAdmin
    ? `found host port ${formatPortRange(port.hostPorts)}, which is that of --admin; ${allowed}`
    : undefined;
}

/** Ranges may meet or overlap: the first port they leave out is looked for. */
function covers(ranges: readonly PortRange[], { first, last }: PortRange): boolean {
  let next = first;
  for (const range of [...ranges].sort((a, b) => a.first - b.first)) {
    if (range.first <= next && next <= range.last) next = range.last + 1;
  }
  return next > last;
}

function refusedHost({ host }: PublishedPort, { bind }: LabelPolicy): string | undefined {
  if (host === undefined || bind.some((allowed) => equalHost(allowed, host))) return undefined;
  const allowed = bind.map(formatBindHost).join(', ');
  return `found host address ${formatBindHost(host)}; allowed: ${allowed} (--docker-bind)`;
}

function equalHost(a: BindHost, b: BindHost): boolean {
  return a.zone === b.zone && equalAddress(a.address, b.address);
}

/** Undefined stands for both families, as everywhere. */
function hostsWithoutChoice(bind: readonly BindHost[]): readonly (BindHost | undefined)[] {
  const wildcards = bind.filter(({ address }) => isUnspecified(address));
  const families = new Set(wildcards.map(({ address }) => isIpv4(address)));
  if (families.size > 1) return [undefined];
  return families.size > 0 ? wildcards.slice(0, 1) : bind;
}

/** What a plan has to know of the host: which way leads to each upstream, and whether there is IPv6. Read without any privilege. */
import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { isInterfaceName } from '../config/transparent-options.ts';
import { type Address, formatAddress, isIpv4, isLoopback } from '../net/address.ts';
import { hostOf, type Needs } from './needs.ts';
import { commandText, type Run } from './system.ts';
import type { HostFacts, Way } from './way.ts';

export async function readHostFacts(start: Run, { transparent, pseudo }: Needs): Promise<HostFacts> {
  const ways = new Map<string, Way>();
  for (const upstream of [...transparent, ...pseudo]) {
    const host = hostOf(upstream);
    if (!ways.has(host)) ways.set(host, await findWay(start, upstream.address, upstream.zone));
  }
  return { ways, ipv6: hasIpv6(), linkLocal: withLinkLocal() };
}

/** Every route of a set-up leads to lo. Its switch is off in most containers, and is not there in a kernel without IPv6. */
export function hasIpv6(): boolean {
  try {
    return readFileSync('/proc/sys/net/ipv6/conf/lo/disable_ipv6', 'utf8').trim() === '0';
  } catch {
    return false;
  }
}

function withLinkLocal(): ReadonlySet<string> {
  const all = Object.entries(networkInterfaces());
  return new Set(
    all.flatMap(([name, addresses = []]) => (addresses.some(({ scopeid }) => scopeid) ? [name] : [])),
  );
}

/** @param zone of a link-local address */
export async function findWay(start: Run, address: Address, zone = ''): Promise<Way> {
  if (isLoopback(address)) return { kind: 'local' };
  if (zone !== '') return { kind: 'interface', name: zone, gateway: undefined };
  const family = isIpv4(address) ? '-4' : '-6';
  const command = { tool: 'ip', args: ['-j', family, 'route', 'get', formatAddress(address)] } as const;
  const { status, stdout, stderr } = await start(command);
  if (status !== 0) return { kind: 'none', reason: stderr.trim().replace(/^RTNETLINK answers: /, '') };
  return parseWay(stdout) ?? { kind: 'none', reason: `${commandText(command)} said ${stdout.trim()}` };
}

/** `ip -j route get`. */
export function parseWay(text: string): Way | undefined {
  const [route]: readonly Readonly<Record<string, unknown>>[] = JSON.parse(text);
  if (route === undefined) return undefined;
  if (route['type'] === 'local') return { kind: 'local' };
  const { dev, gateway, via } = route;
  if (typeof dev !== 'string' || !isInterfaceName(dev)) return undefined;
  if ((route['type'] ?? 'unicast') !== 'unicast') return undefined;
  return { kind: 'interface', name: dev, gateway: gatewayText(gateway ?? via) };
}

/** `via` is a gateway of the other family. */
function gatewayText(gateway: unknown): string | undefined {
  if (typeof gateway === 'string') return gateway;
  if (typeof gateway === 'object' && gateway !== null && 'host' in gateway) return String(gateway.host);
  return undefined;
}

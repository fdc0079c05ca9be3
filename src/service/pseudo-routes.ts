/**
 * Are packets to pseudo addresses kept by this host? A local route does that, one command for each family. It is
 * looked for without a privilege, and without a packet that leaves the host.
 */
import { createSocket, type SocketType } from 'node:dgram';
import { createReadStream, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { type Address, type Family, formatAddress, isIpv4, tryParseAddress } from '../net/address.ts';
import { type Cidr, formatCidr, masked } from '../net/cidr.ts';

/** Where pseudo addresses are, before IPv4 upstreams and before IPv6 ones. */
export interface PseudoPrefixes {
  readonly v4: Cidr;
  readonly v6: Cidr;
}

/** The command that has a host keep the packets to the pseudo addresses before upstreams of a family. */
export function pseudoRouteCommand(upstream: Family, { v4, v6 }: PseudoPrefixes, engine: string): string {
  if (upstream === 4) return `ip route add local ${formatCidr(v4)} dev lo`;
  const route = `ip -6 route add local ${formatCidr(v6)} dev lo`;
  // node:net and node:dgram have no IPV6_FREEBIND.
  return engine === 'linux' ? route : `${route} && sysctl -w net.ipv6.ip_nonlocal_bind=1`;
}

/** @param engine whose sockets are to have the addresses */
export async function keepsPseudo(
  { v4, v6 }: PseudoPrefixes,
  engine: string,
): Promise<Record<Family, boolean>> {
  const [keeps4, keeps6] = await Promise.all([keepsIpv4(v4), keepsIpv6(v6, engine)]);
  return { 4: keeps4, 6: keeps6 };
}

/** That a socket can be bound says that there is a route, unless the sysctl lets all of them. */
async function keepsIpv4(prefix: Cidr): Promise<boolean> {
  if (!(await canBind('udp4', firstOf(prefix)))) return false;
  return !isNonlocalBind() || (await hasLocalRoute('/proc/net/fib_trie', localIpv4Routes(), prefix));
}

/** The core needs no more than the route; node:dgram needs the sysctl, and says nothing of the route then. */
async function keepsIpv6(prefix: Cidr, engine: string): Promise<boolean> {
  if (engine !== 'linux' && !(await canBind('udp6', firstOf(prefix)))) return false;
  return hasLocalRoute('/proc/net/ipv6_route', localIpv6Route, prefix);
}

function firstOf(prefix: Cidr): Address {
  const address = Uint8Array.from(prefix.address);
  address[15] = 1;
  return address;
}

function canBind(type: SocketType, address: Address): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createSocket(type);
    const done = (can: boolean) => {
      resolve(can);
      socket.close();
    };
    socket.once('error', () => done(false));
    socket.bind({ address: formatAddress(address), port: 0, exclusive: true }, () => done(true));
  });
}

function isNonlocalBind(): boolean {
  try {
    return readFileSync('/proc/sys/net/ipv4/ip_nonlocal_bind', 'utf8').trim() === '1';
  } catch {
    return false;
  }
}

/** The prefix of a local route, where a line of the kernel's table completes one. */
type LocalRoute = (line: string) => Cidr | undefined;

/** A table that is hidden is taken at its best: the worst is a warning less. */
async function hasLocalRoute(table: string, routeIn: LocalRoute, wanted: Cidr): Promise<boolean> {
  const lines = createInterface({ input: createReadStream(table) });
  try {
    for await (const line of lines) {
      const route = routeIn(line);
      if (route !== undefined && isWithin(wanted, route)) return true;
    }
    return false;
  } catch {
    return true;
  } finally {
    lines.close();
  }
}

/** `|-- 240.0.0.0`, and under it one line for each route with this first address: `/4 host LOCAL`. */
function localIpv4Routes(): LocalRoute {
  let first: Address | undefined;
  return (line) => {
    const [, address, length] = /^\s+(?:\|-- ([\d.]+)|\/(\d+) host LOCAL)$/.exec(line) ?? [];
    if (address !== undefined) first = tryParseAddress(address);
    return length === undefined || first === undefined
      ? undefined
      : { address: first, bits: 96 + Number(length) };
  };
}

/** Prefix, length, source prefix, its length, next hop, metric, references, uses, flags, interface; in hexadecimal. */
function localIpv6Route(line: string): Cidr | undefined {
  const [to = '', length = '', , , , , , , flags = ''] = line.split(/\s+/);
  // RTF_LOCAL of linux/ipv6_route.h is the highest bit.
  if (!/^[89a-f]/.test(flags)) return undefined;
  return { address: Uint8Array.from(Buffer.from(to, 'hex')), bits: Number.parseInt(length, 16) };
}

/** A local route for everything is none of ours: it stands in a table of its own, for answers to clients. */
function isWithin(inner: Cidr, outer: Cidr): boolean {
  const isForAll = outer.bits === 0 || (outer.bits === 96 && isIpv4(outer.address));
  const first = masked(inner.address, outer.bits);
  return !isForAll && outer.bits <= inner.bits && Buffer.compare(first, outer.address) === 0;
}

/**
 * What the service has to know of the host before it binds anything. Read at start and again at each reload.
 */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { type Address, tryParseZoned } from '../net/address.ts';
import { type Cidr, masked } from '../net/cidr.ts';
import type { HostNetworks } from '../policy/surroundings.ts';

export interface HostFacts {
  /** False when the host has no IPv6, or it is switched off. */
  readonly ipv6: boolean;
  /** The first port that needs no privilege. */
  readonly lowPort: number;
}

export async function readHostFacts(): Promise<HostFacts> {
  return { ipv6: await canListenOnIpv6(), lowPort: readLowPort() };
}

/**
 * Docker's own question: can [::1] be listened on? Binding [::] alone would succeed on a host whose IPv6 is
 * off by sysctl, and nobody could ever connect.
 */
function canListenOnIpv6(): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen({ host: '::1', port: 0, ipv6Only: true }, () => probe.close(() => resolve(true)));
  });
}

function readLowPort(): number {
  const port = Number(readText('/proc/sys/net/ipv4/ip_unprivileged_port_start') ?? 1024);
  return Number.isInteger(port) ? port : 1024;
}

/** The addresses of the interfaces that are up, and the networks they are in. */
export function readHostNetworks(): HostNetworks {
  const own: Address[] = [];
  const networks: Cidr[] = [];
  for (const { address: text, family, cidr } of Object.values(networkInterfaces()).flatMap(
    (all) => all ?? [],
  )) {
    const address = tryParseZoned(text)?.address;
    if (address === undefined) continue;
    own.push(address);
    // Without a length, which some systems do not tell, it is in no network that is known.
    const length = Number(cidr?.split('/')[1] ?? (family === 'IPv4' ? 32 : 128));
    const bits = family === 'IPv4' ? 96 + length : length;
    networks.push({ address: masked(address, bits), bits });
  }
  return { own, networks };
}

/** RLIMIT_NOFILE as it is now: Node raises the soft limit to the hard one when it starts. */
export function openFileLimit(): number {
  const [, soft] = /^Max open files\s+(\d+|unlimited)/m.exec(readText('/proc/self/limits') ?? '') ?? [];
  if (soft === 'unlimited') return Number.POSITIVE_INFINITY;
  // Without /proc (macOS) the least that systems give is taken.
  return soft === undefined ? 1024 : Number(soft);
}

/** A file of /proc, which a hardened unit may hide. */
function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

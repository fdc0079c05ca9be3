/**
 * An IP address is 16 bytes, IPv4 as v4-mapped (::ffff:a.b.c.d), everywhere inside dualport, so that both
 * families take the same paths and one address has one spelling. Text is read and written here only.
 * Nothing here opens a socket.
 */
import { Address4, Address6 } from 'ip-address';
import { DualportError } from '../errors.ts';

/** 16 bytes in network order; never written to after it was made. */
export type Address = Uint8Array;

export type Family = 4 | 6;

/** An address, its IPv6 zone (interface name, '' for none) and a port. */
export interface Endpoint {
  readonly address: Address;
  readonly zone: string;
  readonly port: number;
}

const mappedPrefix = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff);

export const anyIpv4: Address = fromIpv4(0, 0, 0, 0);
export const anyIpv6: Address = new Uint8Array(16);
export const loopbackIpv4: Address = fromIpv4(127, 0, 0, 1);
export const loopbackIpv6: Address = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);

/** Four octets as a 16-byte address. */
export function fromIpv4(a: number, b: number, c: number, d: number): Address {
  const address = new Uint8Array(16);
  address.set(mappedPrefix);
  address.set([a, b, c, d], 12);
  return address;
}

/** 4 or 16 bytes of a packet or header as an address (copied, so the packet can go). */
export function fromBytes(bytes: Uint8Array): Address {
  if (bytes.length === 16) return Uint8Array.from(bytes);
  return fromIpv4(bytes[0] ?? 0, bytes[1] ?? 0, bytes[2] ?? 0, bytes[3] ?? 0);
}

/**
 * Reads an address: IPv4 in four decimal parts without leading zeros, or IPv6 (RFC 4291, no brackets, no
 * zone, no prefix length).
 *
 * @returns undefined when the text is not one
 */
export function tryParseAddress(text: string): Address | undefined {
  if (text.includes('/') || text.includes('%')) return undefined;
  if (text.includes(':')) return Address6.isValid(text) ? ipv6Bytes(text) : undefined;
  return Address4.isValid(text) ? fromBytes(Uint8Array.from(new Address4(text).toArray())) : undefined;
}

function ipv6Bytes(text: string): Address {
  return Uint8Array.from(new Address6(text).toUnsignedByteArray());
}

/** An address with an optional zone, as in `fe80::1%eth0`; undefined when the text is not one. */
export function tryParseZoned(text: string): { address: Address; zone: string } | undefined {
  const percent = text.indexOf('%');
  const address = tryParseAddress(percent < 0 ? text : text.slice(0, percent));
  if (address === undefined) return undefined;
  const zone = percent < 0 ? '' : text.slice(percent + 1);
  if (percent >= 0 && (isIpv4(address) || !/^[\w.-]{1,15}$/.test(zone))) return undefined;
  return { address, zone };
}

/** Like {@link tryParseAddress}, for a text a user wrote. */
export function parseAddress(text: string): Address {
  const address = tryParseAddress(text);
  if (address !== undefined) return address;
  throw new DualportError(
    'ADDRESS',
    `${JSON.stringify(text)} is not an IP address, such as 192.0.2.1 or 2001:db8::1`,
  );
}

/**
 * A socket's own address text and port, as Node reports them, as an endpoint. The zone is taken as it is: the
 * kernel lets an interface have nearly any name, `wan+1` or `a@b`, and its neighbours must not end the process.
 */
export function endpointOf(text: string, port: number): Endpoint {
  const [host = '', zone = ''] = text.split('%', 2);
  const address = tryParseAddress(host);
  if (address !== undefined) return { address, zone, port };
  throw new DualportError('ADDRESS', `the system reported the address ${JSON.stringify(text)}`);
}

export function isIpv4(address: Address): boolean {
  // A loop and no closure: this is asked several times per flow, and takes 20 ns instead of 120.
  for (let i = 0; i < mappedPrefix.length; i++) if (address[i] !== mappedPrefix[i]) return false;
  return true;
}

export function familyOf(address: Address): Family {
  return isIpv4(address) ? 4 : 6;
}

/** The four octets of an IPv4 address. */
export function ipv4Octets(address: Address): Uint8Array {
  return address.subarray(12);
}

export function isUnspecified(address: Address): boolean {
  return (isIpv4(address) ? ipv4Octets(address) : address).every((byte) => byte === 0);
}

export function isLoopback(address: Address): boolean {
  return isIpv4(address) ? address[12] === 127 : equalAddress(address, loopbackIpv6);
}

/** True for fe80::/10, the one kind of address that means nothing without its interface. */
export function isLinkLocal(address: Address): boolean {
  return address[0] === 0xfe && ((address[1] ?? 0) & 0xc0) === 0x80;
}

/** True for an address one host can send from: not unspecified, multicast or limited broadcast. */
export function isUnicast(address: Address): boolean {
  if (isUnspecified(address)) return false;
  if (!isIpv4(address)) return address[0] !== 0xff;
  // 224.0.0.0/4 is multicast; 240.0.0.0/4 counts as unicast because pseudo-IPv4 clients live there.
  const first = address[12] ?? 0;
  return (first < 224 || first > 239) && !ipv4Octets(address).every((byte) => byte === 255);
}

export function equalAddress(a: Address, b: Address): boolean {
  return Buffer.compare(a, b) === 0;
}

export function equalEndpoint(a: Endpoint, b: Endpoint): boolean {
  return a.port === b.port && a.zone === b.zone && equalAddress(a.address, b.address);
}

/** RFC 5952 text; IPv4 as four decimal parts. */
export function formatAddress(address: Address): string {
  if (isIpv4(address)) return ipv4Octets(address).join('.');
  return Address6.fromUnsignedByteArray([...address]).correctForm();
}

/** The text a socket call takes: the address with its zone. */
export function formatHost(endpoint: Endpoint): string {
  const text = formatAddress(endpoint.address);
  return endpoint.zone === '' ? text : `${text}%${endpoint.zone}`;
}

/** `192.0.2.1:80` or `[2001:db8::1]:80`. */
export function formatEndpoint(endpoint: Endpoint): string {
  const host = formatHost(endpoint);
  return host.includes(':') ? `[${host}]:${endpoint.port}` : `${host}:${endpoint.port}`;
}

/** A Map key for an endpoint: equal exactly when the endpoints are. */
export function endpointKey(endpoint: Endpoint): string {
  return `${Buffer.from(endpoint.address).toString('latin1')}${endpoint.port}%${endpoint.zone}`;
}

/** A Map key for the network one client is counted by: IPv4 /32, IPv6 /64 (a host's usual share). */
export function sourceKey(address: Address): string {
  const length = isIpv4(address) ? 16 : 8;
  return Buffer.from(address.buffer, address.byteOffset, length).toString('latin1');
}

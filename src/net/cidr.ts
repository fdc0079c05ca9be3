/**
 * Sets of address prefixes, compiled once and asked once per flow. A prefix speaks for one family:
 * `0.0.0.0/0` is every IPv4 address, `::/0` every IPv6 address, and a v4-mapped prefix (`::ffff:10.0.0.0/104`)
 * is the IPv4 prefix it spells, so no spelling of an address slips past a rule.
 */
import { DualportError } from '../errors.ts';
import { type Address, formatAddress, isIpv4, tryParseAddress } from './address.ts';

export interface Cidr {
  /** The first address; all bits behind the prefix are zero. */
  readonly address: Address;
  /** Prefix length in bits of the 16-byte form, 0…128; IPv4's /8 is 104 here. */
  readonly bits: number;
}

/** Reads `10.0.0.0/8`, `2001:db8::/32`, or a single address. */
export function parseCidr(text: string): Cidr {
  const slash = text.indexOf('/');
  const address = tryParseAddress(slash < 0 ? text : text.slice(0, slash));
  if (address === undefined) throw notCidr(text, 'write one such as 10.0.0.0/8 or 2001:db8::/32');
  const ipv4Text = !text.includes(':');
  const width = ipv4Text ? 32 : 128;
  const length = slash < 0 ? width : prefixLength(text.slice(slash + 1), width);
  if (length === undefined) throw notCidr(text, `the prefix length is a number from 0 to ${width}`);
  const bits = ipv4Text ? 96 + length : length;
  if (!ipv4Text && bits < 96 && isIpv4(address)) throw notCidr(text, mappedAdvice(address, bits));
  const first = masked(address, bits);
  if (Buffer.compare(first, address) !== 0) {
    const meant = formatCidr({ address: first, bits });
    throw notCidr(
      text,
      `it has bits set behind the prefix; write ${meant}, or the address alone for one host`,
    );
  }
  return { address, bits };
}

export function formatCidr(cidr: Cidr): string {
  return `${formatAddress(cidr.address)}/${isIpv4Prefix(cidr) ? cidr.bits - 96 : cidr.bits}`;
}

/** The prefixes of what both sets have: two prefixes nest, or have nothing in common. Each once. */
export function intersectCidrs(a: readonly Cidr[], b: readonly Cidr[]): readonly Cidr[] {
  const common = [...inside(a, b), ...inside(b, a)];
  return [...new Map(common.map((cidr) => [cidrKey(cidr), cidr])).values()];
}

/** Those that lie in one of the others; by look-ups, because both lists may be long and are another's. */
function inside(inner: readonly Cidr[], outer: readonly Cidr[]): readonly Cidr[] {
  const keys = new Set(outer.map(cidrKey));
  const lengths = [...new Set(outer.map(({ bits }) => bits))];
  return inner.filter((cidr) => {
    const shortest = isIpv4Prefix(cidr) ? 96 : 0;
    const fits = (bits: number) => bits >= shortest && bits <= cidr.bits;
    return lengths.some(
      (bits) => fits(bits) && keys.has(cidrKey({ address: masked(cidr.address, bits), bits })),
    );
  });
}

function cidrKey({ address, bits }: Cidr): string {
  return `${Buffer.from(address).toString('latin1')}${bits}`;
}

function isIpv4Prefix(cidr: Cidr): boolean {
  return cidr.bits >= 96 && isIpv4(cidr.address);
}

/**
 * Compiles prefixes to one question. Overlapping ranges are merged and searched by halves, so a block list
 * of many thousand prefixes costs a few comparisons per flow.
 */
export function compileCidrs(cidrs: readonly Cidr[]): (address: Address) => boolean {
  const ipv4 = mergedRanges(cidrs.filter(isIpv4Prefix));
  const ipv6 = mergedRanges(cidrs.filter((cidr) => !isIpv4Prefix(cidr)));
  return (address) => contains(isIpv4(address) ? ipv4 : ipv6, address);
}

interface Range {
  readonly first: Address;
  last: Address;
}

function mergedRanges(cidrs: readonly Cidr[]): readonly Range[] {
  const ranges = cidrs
    .map((cidr): Range => ({ first: cidr.address, last: lastAddress(cidr) }))
    .sort((a, b) => Buffer.compare(a.first, b.first));
  const merged: Range[] = [];
  for (const range of ranges) {
    const previous = merged.at(-1);
    if (previous === undefined || Buffer.compare(range.first, previous.last) > 0) merged.push(range);
    else if (Buffer.compare(range.last, previous.last) > 0) previous.last = range.last;
  }
  return merged;
}

function contains(ranges: readonly Range[], address: Address): boolean {
  let low = 0;
  let high = ranges.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const range = ranges[middle] as Range;
    if (Buffer.compare(address, range.first) < 0) high = middle - 1;
    else if (Buffer.compare(address, range.last) > 0) low = middle + 1;
    else return true;
  }
  return false;
}

/** The address with all bits behind the prefix zero. */
export function masked(address: Address, bits: number): Address {
  // A loop and no closure: pseudo addresses ask this once per flow.
  const first = new Uint8Array(16);
  const whole = bits >> 3;
  for (let i = 0; i < whole; i++) first[i] = address[i] ?? 0;
  if (whole < 16) first[whole] = (address[whole] ?? 0) & byteMask(bits & 7);
  return first;
}

function lastAddress(cidr: Cidr): Address {
  return cidr.address.map((byte, i) => byte | (~byteMask(cidr.bits - 8 * i) & 0xff));
}

/** The mask of one byte when `bits` of the prefix are left at it. */
function byteMask(bits: number): number {
  if (bits >= 8) return 0xff;
  return bits <= 0 ? 0 : (0xff << (8 - bits)) & 0xff;
}

function prefixLength(text: string, width: number): number | undefined {
  if (!/^(0|[1-9]\d{0,2})$/.test(text)) return undefined;
  const length = Number(text);
  return length <= width ? length : undefined;
}

/** What is behind ::ffff: counts from bit 96 on; a shorter prefix was meant as IPv4's own. */
function mappedAdvice(address: Address, bits: number): string {
  const meant = bits <= 32 ? `; write ${formatAddress(address)}/${bits}` : '';
  return `a v4-mapped prefix has a length of 96 or more${meant}`;
}

function notCidr(text: string, why: string): DualportError {
  return new DualportError('ADDRESS', `${JSON.stringify(text)} is not an address prefix: ${why}`);
}
